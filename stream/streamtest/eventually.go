package streamtest

import (
	"testing"
	"time"
)

// Eventually calls ok until it returns true, every two milliseconds and for as long as
// within allows; then it ends the test with what was waited for. It is for the goroutine
// of the test, since it may call t.Fatalf. Give it a within that only a failing test uses
// up: a machine that is busy is no failure.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", within, what)
		}
		<-poll.C
	}
}
