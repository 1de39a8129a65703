// Package kafka holds the files that turn Kafka's published jars into a broker for tests:
// the pom that names them, and the configuration of the broker and of its log.
package kafka

import _ "embed"

// POM lists the jars of the broker. Its kafka.version is the one compose.yaml runs.
//
//go:embed pom.xml
var POM []byte

// Properties is the broker's configuration but for what differs from start to start: ports
// and folders.
//
//go:embed server.properties
var Properties []byte

// Log4j sends the broker's log to its standard output.
//
//go:embed log4j2.yaml
var Log4j []byte
