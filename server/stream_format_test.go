package server

import "testing"

// TestBareStreamsShare: all subscribers of a feed share the encodings that its log keeps,
// whether their streams are bare or not.
func TestBareStreamsShare(t *testing.T) {
	for _, r := range []subscribeRequest{{}, {envelope: true}} {
		bare, other := bareFormat{}.events(r), sseFormat{}.events(r)
		if bare != other || inChunks(bare) != inChunks(other) {
			t.Errorf("envelope %t: a bare stream has encodings of its own", r.envelope)
		}
	}
}
