//go:build linux && !chaos

package chaos

// full is the form of make chaos: more rounds, and the tests of files with the tag chaos.
const full = false
