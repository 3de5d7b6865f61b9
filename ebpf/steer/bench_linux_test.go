package steer

import (
	"fmt"
	"math"
	"net"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/reuseport"
)

// BenchmarkChoice measures, by the kernel's own statistics, how long the program takes to choose, beside one that does
// nothing, attached to another group in the same run. x/empty is the ratio.
func BenchmarkChoice(b *testing.B) {
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Skip(err)
	}
	defer stats.Close()
	for _, n := range []int{2, 8, 64, 256} {
		for _, epsilon := range []float64{0, math.Inf(1)} { // the less loaded of two; the local one
			b.Run(fmt.Sprintf("workers=%d/epsilon=%v", n, epsilon), func(b *testing.B) {
				s := New(Require(), Epsilon(epsilon))
				if err := s.Start(everyCPUOf(n)); err != nil {
					b.Skip(err)
				}
				defer s.Close()
				group := benchGroup(b, n)
				if err := s.Attach("test", conns(group), nil); err != nil {
					b.Fatal(err)
				}
				reporters := make([]*Reporter, n)
				for id := range n {
					slot, _ := s.Join()
					if err := s.Up(id, slot); err != nil {
						b.Fatal(err)
					}
					reporters[id] = s.Reporter(slot)
				}
				accept(group, reporters)
				nothing, err := ebpf.NewProgram(&ebpf.ProgramSpec{
					Type: ebpf.SkReuseport, License: "MIT",
					Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
				})
				if err != nil {
					b.Fatal(err)
				}
				defer nothing.Close()
				other := benchGroup(b, n)
				accept(other, make([]*Reporter, n))
				err = withDescriptor(other[0].(syscall.Conn), func(fd int) error {
					return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, nothing.FD())
				})
				if err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					for _, l := range []net.Listener{group[0], other[0]} {
						c, err := net.Dial("tcp", l.Addr().String())
						if err != nil {
							b.Fatal(err)
						}
						c.(*net.TCPConn).SetLinger(0)
						c.Close()
					}
				}
				ours, empty := mean(b, s.groups["test"].objects.Program), mean(b, nothing)
				b.ReportMetric(ours, "ns/choice")
				b.ReportMetric(empty, "ns/empty")
				b.ReportMetric(ours/empty, "x/empty")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// mean returns how long a run of a program took.
func mean(b *testing.B, p *ebpf.Program) float64 {
	b.Helper()
	s, err := p.Stats()
	if err != nil {
		b.Fatal(err)
	}
	return float64(s.Runtime) / float64(max(1, s.RunCount))
}

// everyCPUOf pins n workers to the CPUs in turn.
func everyCPUOf(n int) (workers []affinity.Set) {
	allowed, _ := affinity.Current()
	var cpus []int
	for cpu := range allowed.All() {
		cpus = append(cpus, cpu)
	}
	for i := range n {
		workers = append(workers, affinity.Of(cpus[i%len(cpus)]))
	}
	return workers
}

// benchGroup opens a group.
func benchGroup(b *testing.B, n int) []net.Listener {
	b.Helper()
	group, err := reuseport.ListenGroup(b.Context(), "tcp", "127.0.0.1:0", n)
	if err != nil {
		b.Fatal(err)
	}
	for _, l := range group {
		b.Cleanup(func() { l.Close() })
	}
	return group
}

// accept accepts and closes connections.
func accept(group []net.Listener, reporters []*Reporter) {
	for id, l := range group {
		r := reporters[id]
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if r != nil {
					r.Accept()
					r.Close()
				}
				c.Close()
			}
		}()
	}
}
