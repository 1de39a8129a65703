// Package redis holds the configuration that Vigie asks of a Redis server.
package redis

import _ "embed"

// Conf is a redis.conf without the address to listen on and the folder to write to.
//
//go:embed redis.conf
var Conf []byte
