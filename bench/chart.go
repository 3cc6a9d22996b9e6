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
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/batchconn/batchconn/bench/internal/reading"
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

// The names of lines.
const (
	lineOurs      = "batchconn"
	lineOurLoop   = "batchconn, one at a time"
	lineC         = "C"
	lineWireGuard = "wireguard-go"
	lineTailscale = "tailscale"
	lineQuicGo    = "quic-go"
	lineXNet      = "x/net"
	linePion      = "pion"
	lineGLib      = "GLib"
	lineNet       = "net"
)

// lines are those of the charts; more could not be told apart.
var lines = []struct {
	name string
	line
}{
	{lineOurs, line{blue, nil, draw.CircleGlyph{}}},
	{lineOurLoop, line{green, nil, draw.SquareGlyph{}}},
	{lineC, line{black, dotted, draw.PlusGlyph{}}},
	{lineWireGuard, line{vermillion, dashed, draw.TriangleGlyph{}}},
	{lineTailscale, line{orange, dashed, draw.PyramidGlyph{}}},
	{lineQuicGo, line{purple, dashed, draw.CrossGlyph{}}},
	{lineXNet, line{skyBlue, dashed, draw.RingGlyph{}}},
	{linePion, line{grey, dashed, draw.BoxGlyph{}}},
	{lineGLib, line{black, dashed, draw.CrossGlyph{}}},
	{lineNet, line{grey, dotted, draw.CircleGlyph{}}},
}

// A chart is a figure of the contests that differ in one dimension.
type chart struct {
	file, title, x, y string
	of                Work // its part, dimension, medium and whether it is segmented
	at                func(Work) int
	figure            func(Row) float64
	logY              bool
}

func atBatch(w Work) int   { return w.Batch }
func atBurst(w Work) int   { return w.Burst }
func atSize(w Work) int    { return w.Size }
func atSenders(w Work) int { return w.Senders }

func mega(r Row) float64    { return r.Rate.Median / 1e6 }
func gain(r Row) float64    { return r.WallGain.Median }
func cpu(r Row) float64     { return r.CPU.Median }
func dropped(r Row) float64 { return max(0, (1-r.Arrived)*100) }

const (
	perSecond = "million datagrams a second"
	perOne    = "ns for a datagram"
	timesNet  = "times net's loop"
)

// charts are all; those with a medium are drawn for either.
func charts() (all []chart) {
	all = []chart{
		{"throughput.svg", "Sending: throughput by batch size", "datagrams in a batch", timesNet,
			Work{Part: partSending, Dimension: batches}, atBatch, gain, false},
		{"cost.svg", "Sending: processor time by size", "bytes in a datagram", perOne,
			Work{Part: partSending, Dimension: sizes}, atSize, cpu, true},
		{"senders.svg", "Sending: throughput by goroutines that send on one socket", "goroutines", perSecond,
			Work{Part: partSending, Dimension: manySender}, atSenders, mega, false},
		{"ends.svg", "End to end, one goroutine each side: throughput by size", "bytes in a datagram", timesNet,
			Work{Part: partEnds, Dimension: sizes}, atSize, gain, true},
		{"reading.svg", "Receiving what was sent segmented: processor time by burst", "datagrams in a burst", perOne,
			Work{Part: partReading, Dimension: batches, Segmented: true}, atBurst, cpu, true},
		{"reading-plain.svg", "Receiving what was sent plainly: processor time by burst", "datagrams in a burst", perOne,
			Work{Part: partReading, Dimension: batches}, atBurst, cpu, true},
		{"drops.svg", "Dropped of a burst, sent segmented, by a receive buffer of 208 KiB", "datagrams in a burst", "% dropped",
			Work{Part: partOverrun, Dimension: batches, Segmented: true}, atBurst, dropped, false},
	}
	for i := range all {
		all[i].of.Medium = reading.Loopback.Name
	}
	for _, c := range all[3:] {
		c.of.Medium = onWire
		c.file = strings.Replace(c.file, ".svg", "-wire.svg", 1)
		all = append(all, c)
	}
	return all
}

// draw writes the charts.
func (r *Results) draw(dir string) (err error) {
	for _, c := range charts() {
		err = errors.Join(err, c.draw(r, filepath.Join(dir, c.file)))
	}
	return err
}

func (c *chart) draw(r *Results, file string) error {
	contests := c.contests(r)
	if len(contests) < 2 {
		return nil // a short run has no such line
	}
	p := c.plot(contests, &r.Machine)
	legend := plot.NewLegend()
	legend.TextStyle.Font.Size, legend.Padding = vg.Points(10), vg.Points(4)
	legend.ThumbnailWidth, legend.Left, legend.Top = vg.Points(34), true, true
	for _, d := range lines {
		name, pts := c.points(contests, d.name)
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
		legend.Add(name, l, s)
	}
	return c.save(p, legend, file)
}

// plot is one without lines.
func (c *chart) plot(contests []Result, m *Machine) *plot.Plot {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s\n%s. %v", c.title, c.caption(contests[0].Work), m)
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
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{225}, color.Gray{225}
	p.Add(grid)
	return p
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
	all = r.only(func(w Work) bool {
		return w.Part == c.of.Part && w.Medium == c.of.Medium && w.Segmented == c.of.Segmented &&
			(w.Dimension == base || w.Dimension == c.of.Dimension)
	})
	slices.SortFunc(all, func(a, b Result) int { return c.at(a.Work) - c.at(b.Work) })
	return all
}

// caption names what all the contests have in common.
func (c *chart) caption(w Work) string {
	what := []string{w.Medium}
	if c.of.Dimension != sizes {
		what = append(what, fmt.Sprintf("%d bytes", w.Size))
	}
	switch {
	case c.of.Dimension == batches:
	case w.Part == partSending:
		what = append(what, fmt.Sprintf("batches of %d", w.Batch))
	default:
		what = append(what, fmt.Sprintf("bursts of %d", w.Burst))
	}
	return strings.Join(what, ", ")
}

// points are those of a line, and the name of its way.
func (c *chart) points(contests []Result, line string) (name string, pts plotter.XYs) {
	for _, res := range contests {
		for _, row := range res.Rows {
			if row.line(c.of.Part) == line && row.Error == "" && !row.TooLong {
				name = row.Way
				pts = append(pts, plotter.XY{X: float64(c.at(res.Work)), Y: c.figure(row)})
			}
		}
	}
	return name, pts
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
	for decade := 0.01; decade <= high; decade *= 10 {
		for _, v := range []float64{decade, 2 * decade, 5 * decade} {
			if v >= low && v <= high {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', -1, 64)})
			}
		}
	}
	return ticks
}
