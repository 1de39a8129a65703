// Package services starts a real Kafka broker, or a cluster of them, and a real Redis server
// for tests, without containers, and breaks them on demand: killed, stopped in their tracks,
// started again.
//
// Everything listens on 127.0.0.1, writes below the Dir it is given and ends with the
// process that started it, however that ends (on Linux). It is no way to run either service
// in production, and nothing outside tests may need it.
package services

// The versions that Vigie is tested with. kafka/pom.xml and compose.yaml name them too; a
// test in deploy holds the three together.
const (
	KafkaVersion = "4.1.0"
	RedisVersion = "7.0.15"
)
