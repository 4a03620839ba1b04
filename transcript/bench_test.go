package transcript

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"sallyport.dev/recording"
)

// BenchmarkRead reads what a busy shell shows; the time of a byte is what a session costs
// at most, up to its allowance.
func BenchmarkRead(b *testing.B) {
	for name, text := range map[string]string{
		"log":    "Nov 20 09:22:06 frontend-1 nginx[1234]: 10.1.2.3 - GET /index.html 200 \"curl/8.0\"\r\n",
		"ls":     "\x1b[0m\x1b[01;34mbin\x1b[0m  \x1b[01;36mlib\x1b[0m  \x1b[01;34musr\x1b[0m  README.md  main.go\r\n",
		"wide":   "日本語のテキストです。日本語のテキストです。\r\n",
		"redraw": "\x1b[H\x1b[2Jtop - 09:22:06 up 1 day\r\n  PID USER  CPU\r\n    1 root  0.0\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			data := bytes.Repeat([]byte(text), 64)
			b.SetBytes(int64(len(data)))
			tr := New(Config{Line: func(Line) {}})
			at := time.Duration(0)
			for b.Loop() {
				at += time.Second
				tr.Take(Piece{At: at, Kind: recording.KindOutput, Data: data})
			}
		})
	}
}

// BenchmarkFollow is what a recorder pays for each of its events in a flood.
func BenchmarkFollow(b *testing.B) {
	data := bytes.Repeat([]byte("no end of this in sight\r\n"), 300)
	b.SetBytes(int64(len(data)))
	var m Meter
	for b.Loop() {
		m.Take(time.Second, recording.KindOutput, data, func(Piece) {})
	}
}

// BenchmarkIdle reports what an idle shell takes whose screen is full of text.
func BenchmarkIdle(b *testing.B) {
	const sessions = 1000
	line := bytes.Repeat([]byte("x"), 79)
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		keep := make([]*Transcript, sessions)
		for i := range keep {
			keep[i] = New(Config{})
			for range 30 {
				keep[i].Take(Piece{Kind: recording.KindOutput, Data: append(line, "\r\n"...)})
			}
			keep[i].Still(time.Hour)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/sessions, "B/session")
		runtime.KeepAlive(keep)
	}
}
