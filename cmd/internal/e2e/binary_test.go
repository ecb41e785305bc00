package e2e

import (
	"bytes"
	"os"
	"testing"
)

// TestBinaryLeavesOut: a program that calls methods by a name which the linker does not
// know contains every exported method of what it uses: a third of this one. Of what it
// uses, only templates do so.
func TestBinaryLeavesOut(t *testing.T) {
	binary, err := os.ReadFile(built(t, false))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(binary, []byte("net/http.(*conn).serve")) {
		t.Fatal("the binary has no names of functions")
	}
	if bytes.Contains(binary, []byte("text/template.(*state).evalField")) {
		t.Error("something executes templates; go build -ldflags=-dumpdep shows what")
	}
}
