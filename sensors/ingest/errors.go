package ingest

import "errors"

// Errors of a message of which nothing was taken. They hold nothing of it; every other error of
// Ingest says that storing failed, and then the same message may come again.
var (
	// ErrFormat says that the format asked for is not known here, or with "auto" that the
	// message is of no known one.
	ErrFormat = errors.New("ingest: not a known format")
	// ErrMessage says that a message is not what its format asks for.
	ErrMessage = errors.New("ingest: the message cannot be read")
)
