//go:build race

package httpapi

// slack is how much longer a good sensor may have to wait under the race detector.
const slack = 20
