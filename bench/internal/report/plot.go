package report

import (
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

var (
	ownColor   = color.RGBA{R: 0, G: 114, B: 178, A: 255}
	baseColor  = color.RGBA{R: 230, G: 159, B: 0, A: 255}
	otherColor = color.RGBA{R: 153, G: 153, B: 153, A: 255}
)

// plot draws a figure of each server as a bar, from the least to the most of the rounds as an error bar.
func (t *table) plot(f Figure, file string) error {
	p := plot.New()
	p.Title.Text = t.heading()
	p.X.Label.Text = f.Title
	rows := t.sorted()
	slices.Reverse(rows) // the first stands on top
	var names plot.ConstantTicks
	for i, r := range rows {
		names = append(names, plot.Tick{Value: float64(i), Label: "  " + r.server}) // the spaces are cut off, not letters
		s, ok := r.value(f)
		if !ok {
			continue
		}
		if err := addBar(p, float64(i), s, t.color(r)); err != nil {
			return err
		}
	}
	p.Y.Tick.Marker = names
	p.Y.Min, p.Y.Max = -0.5, float64(len(rows))-0.5
	p.X.Min, p.X.Max = 0, 1.05*p.X.Max
	p.Add(plotter.NewGrid())
	return p.Save(16*vg.Centimeter, vg.Length(2.5+0.6*float64(len(rows)))*vg.Centimeter, file)
}

func (t *table) color(r *row) color.Color {
	switch {
	case r.own:
		return ownColor
	case r.server == t.Base:
		return baseColor
	}
	return otherColor
}

// bar is what plotter wants to know of an error bar.
type bar struct {
	plotter.XYs
	plotter.XErrors
}

func addBar(p *plot.Plot, at float64, s Spread, c color.Color) error {
	b, err := plotter.NewBarChart(plotter.Values{s.Median}, vg.Points(10))
	if err != nil {
		return err
	}
	b.Horizontal, b.XMin, b.Color, b.LineStyle.Width = true, at, c, 0
	e, err := plotter.NewXErrorBars(bar{
		plotter.XYs{{X: s.Median, Y: at}}, plotter.XErrors{{Low: s.Median - s.Min, High: s.Max - s.Median}},
	})
	if err != nil {
		return err
	}
	p.Add(b, e)
	return nil
}
