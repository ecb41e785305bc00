package bench

import (
	"slices"
	"testing"
	"time"
)

func TestOrder(t *testing.T) {
	for _, test := range []struct {
		name  string
		after uint64
		come  []uint64
		want  []verdict
	}{
		{"in order", 0, []uint64{1, 2, 3}, []verdict{inOrder, inOrder, inOrder}},
		{"after a cursor", 41, []uint64{42, 41, 1}, []verdict{inOrder, repeated, repeated}},
		{"the cursor's own", 41, []uint64{41}, []verdict{repeated}},
		{"twice", 0, []uint64{1, 1, 2, 1}, []verdict{inOrder, repeated, inOrder, repeated}},
		{"late", 0, []uint64{1, 3, 2, 2, 4}, []verdict{inOrder, inOrder, late, repeated, inOrder}},
		{"far ahead", 0, []uint64{1, 1000, 999, 1}, []verdict{inOrder, inOrder, late, repeated}},
		{"63 behind", 0, []uint64{64, 1, 1}, []verdict{inOrder, late, repeated}},
		{"too far behind to tell", 0, []uint64{65, 1}, []verdict{inOrder, repeated}},
	} {
		order := orderAfter(test.after)
		var got []verdict
		for _, n := range test.come {
			got = append(got, order.step(n))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v of %v, want %v", test.name, got, test.come, test.want)
		}
	}
}

func TestHistogram(t *testing.T) {
	var one, other, all histogram
	for i := 1; i <= 1000; i++ {
		h := &one
		if i%2 == 0 {
			h = &other
		}
		h.add(time.Duration(i) * time.Millisecond)
	}
	all.merge(&one)
	all.merge(&other)
	for q, want := range map[float64]time.Duration{0: time.Millisecond, .5: 501 * time.Millisecond, .99: 991 * time.Millisecond, 1: time.Second} {
		if got := all.quantile(q); got < want || got > want+want*3/100 {
			t.Errorf("the quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := time.Duration(all.most.Load()); got != time.Second {
		t.Errorf("the longest is %v", got)
	}
	var empty histogram
	if got := empty.quantile(.5); got != 0 {
		t.Errorf("of nothing, half takes %v", got)
	}
}

// TestSlots: every duration is in the slot that ends at or after it, and within 3 %.
func TestSlots(t *testing.T) {
	for d := time.Duration(1); d < 1<<62; d += d/7 + 1 {
		end := slotEnd(slotOf(d))
		if end < d || float64(end) > float64(d)*1.032 {
			t.Fatalf("%d is in the slot up to %d", d, end)
		}
		if slotOf(end) != slotOf(d) || slotOf(end+1) != slotOf(d)+1 {
			t.Fatalf("the slot of %d does not end at %d", d, end)
		}
	}
	if slotOf(-time.Second) != 0 {
		t.Error("a negative duration is not in the first slot")
	}
}

func TestGrouped(t *testing.T) {
	for f, want := range map[float64]string{0: "0", 7: "7", 7.25: "7.2", 999.9: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := Grouped(f); got != want {
			t.Errorf("%v is written %s, want %s", f, got, want)
		}
	}
}
