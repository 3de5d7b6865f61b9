package report

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Make writes report.md and its plots into a directory.
func (r *Raw) Make(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tables := r.tables()
	for _, t := range tables {
		for _, f := range t.plotted() {
			if err := t.plot(f, filepath.Join(dir, t.image(f))); err != nil {
				return fmt.Errorf("plot of %s: %w", t.Name, err)
			}
		}
	}
	for _, s := range scaling(tables) {
		if err := s.plot(dir); err != nil {
			return fmt.Errorf("plot of %s over CPUs: %w", s.Name, err)
		}
	}
	return os.WriteFile(filepath.Join(dir, "report.md"), []byte(r.markdown(tables)), 0o644)
}

func (r *Raw) markdown(tables []*table) string {
	b := new(strings.Builder)
	fmt.Fprintf(b, "# Measured\n\n")
	r.about(b)
	if compared(tables) {
		section(b, "Where the pack loses", losses(tables),
			"Nowhere, of what was measured: no figure is more than 2 % behind.")
		section(b, "Where others are ahead of the pack", leaders(tables), "Nowhere, of what was measured.")
	}
	r.goals(b, tables)
	section(b, "What failed", failures(tables), "")
	for _, s := range scaling(tables) {
		s.markdown(b)
	}
	for _, t := range tables {
		t.markdown(b)
	}
	return b.String()
}

func section(b *strings.Builder, title string, lines []string, none string) {
	if len(lines) == 0 && none == "" {
		return
	}
	fmt.Fprintf(b, "## %s\n\n", title)
	if len(lines) == 0 {
		fmt.Fprintf(b, "%s\n\n", none)
		return
	}
	for _, line := range lines {
		fmt.Fprintf(b, "- %s\n", line)
	}
	b.WriteString("\n")
}

func (r *Raw) about(b *strings.Builder) {
	where := "the same CPUs"
	if r.Apart {
		where = "CPUs of their own"
	}
	fmt.Fprintf(b, "`%s`, %s. Rounds: %d, of %s for each measurement. Clients: %d per CPU of the server, on %s.%s\n\n",
		r.Command, r.Begun.UTC().Format("2006-01-02 15:04 UTC"), r.Rounds, r.Duration, r.Clients, where, r.serverCPUs())
	b.WriteString("Each value is the median of the rounds, what is lost the sum of them. A ratio is the median of the\n" +
		"ratios within each round, with the least and the most of them. docs/benchmarks.md tells what each is.\n\n")
	m := r.Machine
	fmt.Fprintf(b, "- machine: %s, %d CPUs (%s), %s of memory\n", m.Model, m.Number, m.CPUs, m.Memory)
	fmt.Fprintf(b, "- kernel: %s\n- load average before: %s\n", m.Kernel, m.Load)
	if load, err := strconv.ParseFloat(m.Load, 64); err == nil && load > float64(m.Number)/4 {
		b.WriteString("- **the machine was not idle**: times and rates say little, processor time per request says more\n")
	}
	for _, e := range m.Env {
		fmt.Fprintf(b, "- environment: %s\n", e)
	}
	fmt.Fprintf(b, "- versions: %s\n", strings.Join(r.Versions, ", "))
	for _, l := range r.LeftOut {
		fmt.Fprintf(b, "- left out: %s\n", l)
	}
	b.WriteString("\n")
}

// serverCPUs tells how many a server had, if it was always the same.
func (r *Raw) serverCPUs() string {
	if t := r.tables(); len(t) > 0 && t[0].one {
		return fmt.Sprintf(" A server has %s.", plural(t[0].cpus, "CPU"))
	}
	return ""
}

// compared reports whether there is a pack beside a base.
func compared(tables []*table) bool {
	return slices.ContainsFunc(tables, func(t *table) bool {
		return t.base() != nil && slices.ContainsFunc(t.rows, func(r *row) bool { return r.own })
	})
}

// even is how far from the base a ratio may be without being called a loss.
const even = 0.02

// losses says where a pack is behind the base.
func losses(tables []*table) (lines []string) {
	each(tables, func(t *table, f Figure) {
		for _, r := range t.rows {
			s, ok := r.ratio(t.base(), f.Name)
			if !r.own || !f.Ratio || !ok || !behind(f, s.Median) {
				continue
			}
			line := fmt.Sprintf("**%s**, %s: %s has %s times what %s has (%s to %s)", t.heading(), f.Title, r.server,
				ratioText(s.Median), t.Base, ratioText(s.Min), ratioText(s.Max))
			if s.Min <= 1 && s.Max >= 1 {
				line += ", but not in every round"
			}
			lines = append(lines, line)
		}
	})
	return lines
}

func ahead(f Figure, ratio float64) bool {
	f.More = !f.More
	return behind(f, ratio)
}

func behind(f Figure, ratio float64) bool {
	if f.More {
		return ratio < 1-even
	}
	return ratio > 1+even
}

// leaders says which servers that are neither a pack nor the base are better than the pack.
func leaders(tables []*table) (lines []string) {
	each(tables, func(t *table, f Figure) {
		pack := t.row("pack")
		var better []string
		for _, r := range t.rows {
			s, ok := r.ratio(pack, f.Name)
			if ok && f.Ratio && !r.own && r.server != t.Base && ahead(f, s.Median) {
				better = append(better, fmt.Sprintf("%s %s", r.server, ratioText(s.Median)))
			}
		}
		if len(better) > 0 {
			lines = append(lines, fmt.Sprintf("**%s**, %s, as times what the pack has: %s", t.heading(), f.Title,
				strings.Join(better, ", ")))
		}
	})
	return lines
}

// each calls do with every figure of every table.
func each(tables []*table, do func(*table, Figure)) {
	for _, t := range tables {
		for _, f := range t.Figures {
			do(t, f)
		}
	}
}

// goals is a table of what a pack should reach. What it must reach is there only where it does not.
func (r *Raw) goals(b *strings.Builder, tables []*table) {
	var lines []string
	each(tables, func(t *table, f Figure) {
		for _, r := range t.rows {
			if s, set := t.goal(r, f); set && !(f.Goal.Must && f.reached(s.Max) && f.reached(s.Min)) {
				word := "at most"
				if f.More {
					word = "at least"
				}
				is := valueText(f, s.Median)
				if f.Goal.Ratio {
					is = ratioText(s.Median) + " times " + t.Base
				}
				met := "**no**"
				if f.reached(s.Median) {
					met = "yes"
				}
				lines = append(lines, fmt.Sprintf("| %s | %s | %s | %s %g | %s | %s |\n", t.heading(), r.server, f.Title, word,
					f.Goal.Limit, is, met))
			}
		}
	})
	if len(lines) == 0 {
		return
	}
	b.WriteString("## Goals\n\n| | server | | goal | is | reached |\n|---|---|---|---|---|---|\n")
	b.WriteString(strings.Join(lines, "") + "\n")
}

// goal returns what is held against a goal, and whether there is one.
func (t *table) goal(r *row, f Figure) (Spread, bool) {
	if !r.own || f.Goal == (Goal{}) {
		return Spread{}, false
	}
	if f.Goal.Ratio {
		return r.ratio(t.base(), f.Name)
	}
	return r.value(f)
}

func (f Figure) reached(v float64) bool {
	if f.More {
		return v >= f.Goal.Limit
	}
	return v <= f.Goal.Limit
}

// Broken returns what must be and is not, in any round, and what could not be measured.
func (r *Raw) Broken() []string {
	tables := r.tables()
	lines := failures(tables)
	each(tables, func(t *table, f Figure) {
		for _, r := range t.rows {
			s, ok := t.goal(r, f)
			worst := s.Max
			if f.More {
				worst = s.Min
			}
			if ok && f.Goal.Must && !f.reached(worst) {
				lines = append(lines, fmt.Sprintf("%s of %s: %s is %s", t.Name, r.server, f.Title, valueText(f, worst)))
			}
		}
	})
	return lines
}

func failures(tables []*table) (lines []string) {
	for _, t := range tables {
		for _, r := range t.rows {
			if r.failed != "" {
				lines = append(lines, fmt.Sprintf("%s of %s: %s", t.Name, r.server, r.failed))
			}
		}
	}
	return lines
}

func (t *table) heading() string {
	if t.one {
		return t.Title
	}
	return fmt.Sprintf("%s, %s", t.Title, plural(t.cpus, "CPU"))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// image returns the name of the file of a figure's plot.
func (t *table) image(f Figure) string {
	return fmt.Sprintf("%s-%d-%s.svg", t.Name, t.cpus, strings.ReplaceAll(f.Name, " ", "-"))
}

// plotted returns the figures that are: the first, and those that are compared.
func (t *table) plotted() []Figure {
	var all []Figure
	for i, f := range t.Figures {
		if i == 0 || f.Ratio {
			all = append(all, f)
		}
	}
	return all
}

func (t *table) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## %s\n\n`%s`: %s\n\n", t.heading(), t.Name, t.About)
	head, line := "| server |", "|---|"
	for _, f := range t.Figures {
		head += " " + f.Title + " |"
		line += "---:|"
		if f.Ratio && t.base() != nil {
			head += " to " + t.Base + " |"
			line += "---|"
		}
	}
	fmt.Fprintf(b, "%s\n%s\n", head, line)
	for _, r := range t.sorted() {
		fmt.Fprintf(b, "| %s |", r.server)
		for _, f := range t.Figures {
			value, ratio := "", ""
			if s, ok := r.value(f); ok {
				value = valueText(f, s.Median)
			}
			if s, ok := r.ratio(t.base(), f.Name); ok && r != t.base() {
				ratio = fmt.Sprintf("%s (%s..%s)", ratioText(s.Median), ratioText(s.Min), ratioText(s.Max))
			}
			fmt.Fprintf(b, " %s |", value)
			if f.Ratio && t.base() != nil {
				fmt.Fprintf(b, " %s |", ratio)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for _, f := range t.plotted() {
		fmt.Fprintf(b, "![%s: %s](%s)\n", t.heading(), f.Title, t.image(f))
	}
	b.WriteString("\n")
}

// sorted returns the rows: the base, packs, and the others.
func (t *table) sorted() []*row {
	rank := func(r *row) int {
		switch {
		case r.server == t.Base:
			return 0
		case r.own:
			return 1
		}
		return 2
	}
	rows := slices.Clone(t.rows)
	slices.SortStableFunc(rows, func(a, b *row) int { return cmp.Compare(rank(a), rank(b)) })
	return rows
}

func valueText(f Figure, v float64) string {
	text := fmt.Sprintf("%.*f", f.Digits, v)
	whole, fraction, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction != "" {
		return whole + "." + fraction
	}
	return whole
}

func ratioText(v float64) string { return fmt.Sprintf("%.2f", v) }
