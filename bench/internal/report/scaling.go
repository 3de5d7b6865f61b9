package report

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// scaled is a scenario that was measured on several numbers of CPUs.
type scaled struct {
	Scenario
	tables []*table // by the number
}

// scaling returns those that have requests per second.
func scaling(tables []*table) (all []scaled) {
	for _, t := range tables {
		if !slices.ContainsFunc(t.Figures, func(f Figure) bool { return f.Name == rate.Name }) {
			continue
		}
		if n := len(all); n > 0 && all[n-1].Name == t.Name {
			all[n-1].tables = append(all[n-1].tables, t)
			continue
		}
		all = append(all, scaled{t.Scenario, []*table{t}})
	}
	return slices.DeleteFunc(all, func(s scaled) bool { return len(s.tables) < 2 })
}

var (
	rate = Figure{Name: "rate"}
	p99  = Figure{Name: "p99", Digits: 1}
)

func (s scaled) image() string { return s.Name + "-scaling.svg" }

// servers returns the names of all servers.
func (s scaled) servers() (names []string) {
	for _, t := range s.tables {
		for _, r := range t.sorted() {
			if !slices.Contains(names, r.server) {
				names = append(names, r.server)
			}
		}
	}
	return names
}

// markdown tells requests per second, and p99, of each server on so many CPUs.
func (s scaled) markdown(b *strings.Builder) {
	names := s.servers()
	fmt.Fprintf(b, "## %s, over CPUs\n\nRequests per second, and p99.\n\n| CPUs | %s |\n|---|%s\n", s.Title,
		strings.Join(names, " | "), strings.Repeat("---|", len(names)))
	for _, t := range s.tables {
		fmt.Fprintf(b, "| %d |", t.cpus)
		for _, name := range names {
			text := ""
			if v, ok := t.row(name).value(rate); ok {
				text = valueText(rate, v.Median)
			}
			if v, ok := t.row(name).value(p99); ok {
				text += ", " + valueText(p99, v.Median) + " ms"
			}
			fmt.Fprintf(b, " %s |", text)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(b, "\n![%s, over CPUs: requests/s](%s)\n\n", s.Title, s.image())
}

// plot draws a line for each server: requests per second over CPUs.
func (s scaled) plot(dir string) error {
	p := plot.New()
	p.Title.Text = s.Title
	p.X.Label.Text, p.Y.Label.Text = "CPUs", "requests/s"
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	var lines []any
	for _, name := range s.servers() {
		var points plotter.XYs
		for _, t := range s.tables {
			if v, ok := t.row(name).value(rate); ok {
				points = append(points, plotter.XY{X: float64(t.cpus), Y: v.Median})
			}
		}
		if len(points) > 0 {
			lines = append(lines, name, points)
		}
	}
	if err := plotutil.AddLinePoints(p, lines...); err != nil {
		return err
	}
	p.Add(plotter.NewGrid())
	return p.Save(16*vg.Centimeter, 10*vg.Centimeter, filepath.Join(dir, s.image()))
}
