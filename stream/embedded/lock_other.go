//go:build !unix

package embedded

import (
	"errors"
	"os"
)

// lockFile refuses: without a lock that ends with the process, two processes could write
// one folder, or a killed one could keep it for ever.
func lockFile(string) (*os.File, error) {
	return nil, errors.New("a data folder needs a Unix system: leave it empty to keep everything in memory")
}
