package shm

import (
	"fmt"
	"testing"
)

// TestHeadBehind: a writer that dies after a message and before head leaves a message, which is read once, and which the next writer
// goes on after.
func TestHeadBehind(t *testing.T) {
	for _, p := range []Policy{Block, Drop, Overwrite} {
		t.Run(p.String(), func(t *testing.T) {
			m, err := Create(Config{Slots: 4, Slot: 20, Policy: p})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			r, err := m.Reader(Spin)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			said := 0
			for life := range 30 {
				w, err := m.Writer(Spin)
				if err != nil {
					t.Fatal(err)
				}
				for range 1 + life%3 {
					if err := w.TrySend(fmt.Append(nil, said)); err != nil {
						t.Fatal(err)
					}
					said++
				}
				early := life%2 == 0
				if early {
					w.l.head.Store(w.head - 1)
				}
				if err := m.unlock(w.id); err != nil { // as its end would
					t.Fatal(err)
				}
				if life%5 > 2 { // the next one comes before that is read
					next, err := m.Writer(Spin)
					if err != nil {
						t.Fatal(err)
					}
					if err := next.TrySend(fmt.Append(nil, said)); err != nil {
						t.Fatal(err)
					}
					said++
					if err := m.unlock(next.id); err != nil {
						t.Fatal(err)
					}
				}
				var b [20]byte
				var got []string
				for {
					n, err := r.TryReceive(b[:])
					if err != nil {
						break
					}
					got = append(got, string(b[:n]))
				}
				var want []string
				for i := said - len(got); i < said; i++ {
					want = append(want, fmt.Sprint(i))
				}
				if n := 1 + life%3; life%5 > 2 && len(got) != n+1 || life%5 <= 2 && len(got) != n || fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("life %d: read %v, want %v", life, got, want)
				}
			}
			if r.Lost() != 0 {
				t.Errorf("%d lost", r.Lost())
			}
		})
	}
}
