//go:build !race

package httpapi

// slack is how much longer a good sensor may have to wait: no longer.
const slack = 1
