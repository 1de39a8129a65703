package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the program itself, as built for this test, the command vigie
// of scripts and of the processes that tests start and kill.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vigie": func() { os.Exit(run()) }})
}
