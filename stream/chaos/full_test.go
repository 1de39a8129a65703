//go:build linux && chaos

package chaos

// full is said in short_test.go.
const full = true
