// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/batchconn/batchconn/bench/internal/way"
)

// A line is how a way is drawn. The colours are those of Okabe and Ito, which
// all eyes tell apart; ours are solid, the others broken.
type line struct {
	color  color.Color
	dashes []vg.Length
	shape  draw.GlyphDrawer
}

var (
	black      = color.RGBA{0, 0, 0, 255}
	grey       = color.RGBA{110, 110, 110, 255}
	orange     = color.RGBA{230, 159, 0, 255}
	skyBlue    = color.RGBA{86, 180, 233, 255}
	green      = color.RGBA{0, 158, 115, 255}
	blue       = color.RGBA{0, 114, 178, 255}
	vermillion = color.RGBA{213, 94, 0, 255}
	purple     = color.RGBA{204, 121, 167, 255}

	dashed = []vg.Length{vg.Points(5), vg.Points(3)}
	dotted = []vg.Length{vg.Points(1.5), vg.Points(2.5)}
)

// drawn are the ways of the charts; more could not be told apart.
var drawn = []struct {
	way string
	line
}{
	{way.SendMessages.Name, line{blue, nil, draw.CircleGlyph{}}},
	{way.Writer.Name, line{green, nil, draw.SquareGlyph{}}},
	{"C sendmmsg, UDP_SEGMENT, n vectors", line{black, dotted, draw.PlusGlyph{}}},
	{wireGuard.Name, line{vermillion, dashed, draw.TriangleGlyph{}}},
	{tailscale.Name, line{orange, dashed, draw.PyramidGlyph{}}},
	{quicGo.Name, line{purple, dashed, draw.CrossGlyph{}}},
	{way.XNet.Name, line{skyBlue, dashed, draw.RingGlyph{}}},
	{pion.Name, line{grey, dashed, draw.BoxGlyph{}}},
	{way.Net.Name, line{grey, dotted, draw.CircleGlyph{}}},
}

// A chart is a figure of the contests that differ in one dimension.
type chart struct {
	file, title, x, y string
	dimension         string
	at                func(Work) int
	figure            func(Row) Spread
	scale             float64
	logY              bool
}

var charts = []chart{
	{"throughput.svg", "Throughput by batch size", "datagrams in a batch", "million datagrams a second", batches,
		func(w Work) int { return w.Batch }, func(r Row) Spread { return r.Rate }, 1e-6, false},
	{"cost.svg", "Processor time of the sender by size", "bytes in a datagram", "ns for a datagram", sizes,
		func(w Work) int { return w.Size }, func(r Row) Spread { return r.CPU }, 1, true},
	{"senders.svg", "Throughput by goroutines that send on one socket", "goroutines", "million datagrams a second", manySender,
		func(w Work) int { return w.Senders }, func(r Row) Spread { return r.Rate }, 1e-6, false},
}

// draw writes the charts.
func (r *Results) draw(dir string) (err error) {
	for _, c := range charts {
		err = errors.Join(err, c.draw(r, filepath.Join(dir, c.file)))
	}
	return err
}

func (c *chart) draw(r *Results, file string) error {
	contests := c.contests(r)
	if len(contests) < 2 {
		return nil // a short run has no such line
	}
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s\n%s", c.title, c.caption(r, contests[0]))
	p.Title.Padding = vg.Points(6)
	p.Title.TextStyle.Font.Size = vg.Points(11)
	p.X.Label.Text, p.Y.Label.Text = c.x, c.y
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.ConstantTicks(c.ticks(contests))
	p.X.Min, p.X.Max = float64(c.at(contests[0].Work)), float64(c.at(contests[len(contests)-1].Work))
	if c.logY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{}
	} else {
		p.Y.Min, p.Y.Tick.Marker = 0, steps{}
	}
	legend := plot.NewLegend()
	legend.TextStyle.Font.Size, legend.Padding = vg.Points(10), vg.Points(4)
	legend.ThumbnailWidth, legend.Left, legend.Top = vg.Points(34), true, true
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{225}, color.Gray{225}
	p.Add(grid)
	for _, d := range drawn {
		pts := c.points(contests, d.way)
		if len(pts) == 0 {
			continue
		}
		l, s, err := plotter.NewLinePoints(pts)
		if err != nil {
			return err
		}
		l.Color, l.Width, l.Dashes = d.color, vg.Points(1.4), d.dashes
		if d.dashes == nil {
			l.Width = vg.Points(2.2)
		}
		s.Color, s.Shape, s.Radius = d.color, d.shape, vg.Points(2.8)
		p.Add(l, s)
		legend.Add(d.way, l, s)
	}
	return c.save(p, legend, file)
}

// save puts the legend beside the plot, where it hides nothing.
func (c *chart) save(p *plot.Plot, legend plot.Legend, file string) error {
	const width, height, side = 28 * vg.Centimeter, 12 * vg.Centimeter, 10 * vg.Centimeter
	canvas, err := draw.NewFormattedCanvas(width, height, "svg")
	if err != nil {
		return err
	}
	all := draw.New(canvas)
	all.SetColor(color.White)
	all.Fill(all.Rectangle.Path())
	p.Draw(draw.Crop(all, vg.Points(4), -side, vg.Points(4), -vg.Points(4)))
	legend.Draw(draw.Crop(all, width-side+vg.Points(8), 0, 0, -vg.Points(40)))
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(f)
	return errors.Join(err, f.Close())
}

// contests are those of the chart, the base among them, in order.
func (c *chart) contests(r *Results) (all []Result) {
	for _, res := range r.Contests {
		if res.Dimension == base || res.Dimension == c.dimension {
			all = append(all, res)
		}
	}
	slices.SortFunc(all, func(a, b Result) int { return c.at(a.Work) - c.at(b.Work) })
	return all
}

// caption names what all the contests have in common, and the machine.
func (c *chart) caption(r *Results, w Result) string {
	what := "1 receiver"
	for _, f := range []struct {
		dimension, text string
	}{{sizes, fmt.Sprintf("%d bytes", r.Contests[0].Size)}, {batches, fmt.Sprintf("batches of %d", r.Contests[0].Batch)}} {
		if c.dimension != f.dimension {
			what += ", " + f.text
		}
	}
	return what + ". " + r.Machine.String()
}

func (c *chart) points(contests []Result, way string) (pts plotter.XYs) {
	for _, res := range contests {
		for _, row := range res.Rows {
			if row.Way == way && row.Error == "" {
				pts = append(pts, plotter.XY{X: float64(c.at(res.Work)), Y: c.figure(row).Median * c.scale})
			}
		}
	}
	return pts
}

// ticks are at what was measured, with a label where it does not run into the
// last.
func (c *chart) ticks(contests []Result) (ticks []plot.Tick) {
	labelled := 0.0
	for _, res := range contests {
		at := float64(c.at(res.Work))
		t := plot.Tick{Value: at}
		if at > 1.3*labelled {
			t.Label, labelled = strconv.Itoa(int(at)), at
		}
		ticks = append(ticks, t)
	}
	return ticks
}

// steps are ticks at round numbers from 0 on.
type steps struct{}

func (steps) Ticks(_, high float64) (ticks []plot.Tick) {
	step := 0.1
	for _, factor := range []float64{2, 2.5, 2, 2, 2.5, 2} {
		if high/step > 8 {
			step *= factor
		}
	}
	for i := range int(high/step) + 1 {
		v := float64(i) * step
		ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 3, 64)})
	}
	return ticks
}

// decades are the ticks 1, 2 and 5 of each.
type decades struct{}

func (decades) Ticks(low, high float64) (ticks []plot.Tick) {
	for decade := 1.0; decade <= high; decade *= 10 {
		for _, v := range []float64{decade, 2 * decade, 5 * decade} {
			if v >= low && v <= high {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', -1, 64)})
			}
		}
	}
	return ticks
}
