// Package chaos breaks real installations and holds them to a ledger. It has no code of its
// own, only tests: they run vigie processes on a real Kafka and a real Redis, load them with
// vigie load, break something at a moment that a seed chooses, mend it, and then require
//
//   - that vigie load check finds every promise kept: nothing lost, repeated or made up, and
//     no committed offset rewound;
//   - that a read becomes an alert within a second again, soon enough after the mending;
//   - that memory, goroutines and open files of every process are back at their base.
//
// A test that cannot fail shows nothing. So each one also shows that its fault has hit (alerts
// were under way, partitions changed hands, Redis refused), and that the check sees a loss, a
// repeat, a ghost and a rewound offset when the very history it has just passed is spoiled.
//
// `make test` runs a short form on what deploy/testenv starts. `make chaos` runs every fault,
// with the clusters that it takes, in about twenty minutes:
//
//	make chaos                       every fault, at random moments; it prints its seed
//	make chaos SEED=7                the same moments again
//	make chaos RUN='Redis|Zombie'    some of the tests
//	make chaos OUT=x/chaos.json      writes the table there, too, and as x/chaos.md
package chaos
