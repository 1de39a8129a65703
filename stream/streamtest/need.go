package streamtest

import (
	"os"
	"testing"
)

// Need returns the environment variable name, which says where something is that
// a test cannot do without. Unset, the test is skipped with the mend, but fails
// when VIGIE_TEST_REQUIRE is set, as `make test` does: there no test is skipped.
func Need(t testing.TB, name string) string {
	t.Helper()
	if v := os.Getenv(name); v != "" {
		return v
	}
	mend := "set " + name + ", or run make test"
	if os.Getenv("VIGIE_TEST_REQUIRE") != "" {
		t.Fatal(mend)
	}
	t.Skip(mend)
	return ""
}
