package roster

import (
	"math/rand/v2"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestNext checks the table of states: no event leads back, and each state but the last is left by some event.
func TestNext(t *testing.T) {
	left := map[wire.State]bool{}
	for e := SaidHello; e <= SaidClosed; e++ {
		for s := wire.Joining; s <= wire.Closing; s++ {
			to := Next(s, e)
			if to < s {
				t.Errorf("event %d leads from %v back to %v", e, s, to)
			}
			if to != s {
				left[s] = true
			}
		}
	}
	for s := range wire.Closing {
		if !left[s] {
			t.Errorf("nothing leads out of %v", s)
		}
	}
}

// TestWant makes up facts, and checks what must hold whatever they are.
func TestWant(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		n := 1 + random.IntN(5)
		var facts []Fact
		for generation := 1; generation <= 1+random.IntN(2); generation++ {
			for id := range n + random.IntN(2) {
				if random.IntN(4) == 0 {
					continue // it has no process
				}
				facts = append(facts, Fact{
					Ref:   Ref{generation, id, 1 + random.IntN(2)},
					State: wire.State(random.IntN(int(wire.Closing) + 1)), Entitled: random.IntN(3) > 0,
					Late: random.IntN(3) == 0, Hung: random.IntN(5) == 0, Unfit: random.IntN(5) == 0, Slot: random.IntN(9),
				})
			}
		}
		covers := map[int]Ref{}
		for i := range n {
			if len(facts) > 0 && random.IntN(2) == 0 {
				covers[i] = facts[random.IntN(len(facts))].Ref
			}
		}
		checkWishes(t, n, facts, covers, Want(n, facts, covers))
	}
}

// checkWishes reports what is wrong with the wishes that follow from facts.
func checkWishes(t *testing.T, n int, facts []Fact, covers map[int]Ref, wishes []Wish) {
	t.Helper()
	serves, healthy := map[Ref]*Fact{}, false
	for i := range facts {
		f := &facts[i]
		if f.State == wire.Serving && f.Entitled {
			serves[f.Ref] = f
			healthy = healthy || f.Accepting()
		}
	}
	good := func(r Ref) bool { return serves[r] != nil && (serves[r].Accepting() || !healthy) }
	could := false // somebody could cover
	for _, w := range wishes {
		could = could || w.Server != (Ref{}) && !serves[w.Server].Unfit
	}
	for i, w := range wishes {
		none := Ref{}
		switch {
		case w.Server != none && (!good(w.Server) || w.Server.ID != i):
			t.Fatalf("socket %d is served by %v: %+v", i, w.Server, facts)
		case w.Server != none && w.Cover != none:
			t.Fatalf("socket %d has a server, and is covered", i)
		case w.Server == none && w.Cover == none && could:
			t.Fatalf("socket %d is served by nobody: %+v", i, facts)
		case w.Cover != none && (!good(w.Cover) || serves[w.Cover].Unfit):
			t.Fatalf("socket %d is covered by %v, which does not accept: %+v", i, w.Cover, facts)
		case w.Server != none && w.Steer.State != SteerUp:
			t.Fatalf("socket %d has a server, and is steered %v", i, w.Steer)
		}
		if before, ok := covers[i]; ok && w.Cover != none && good(before) && before.ID < n && !serves[before].Unfit && w.Cover != before {
			t.Fatalf("socket %d is covered by %v instead of %v, which could go on", i, w.Cover, before)
		}
	}
}
