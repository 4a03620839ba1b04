package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMethodsNobodyCallsAreLeftOut: whatever looks methods up by name, a template
// above all, keeps every method of every type in the program and, as the kernel maps
// nearly all of it, 1.5 MB in the memory of each idle agent.
func TestMethodsNobodyCallsAreLeftOut(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	program := filepath.Join(t.TempDir(), "agent")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	symbols, err := exec.Command("go", "tool", "nm", program).Output()
	if err != nil {
		t.Fatalf("listing symbols: %v", err)
	}
	if !bytes.Contains(symbols, []byte("main.main")) || bytes.Contains(symbols, []byte("reflect.Value.MethodByName")) {
		t.Error("the program can look methods up by name")
	}
}
