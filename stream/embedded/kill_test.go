package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"
)

// childDir, when set, makes the test binary a broker on that folder.
const childDir = "VIGIE_EMBEDDED_TEST_DIR"

type hello struct{ Addr, User, Password string }

// child serves until it is killed.
func child(dir string) {
	s, err := Start(Config{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	err = json.NewEncoder(os.Stdout).Encode(hello{s.KafkaAddrs()[0], s.KafkaUser(), s.KafkaPassword()})
	if err != nil {
		os.Exit(1)
	}
	select {}
}

// TestKilledBrokerLosesNothing kills the process at a random moment while several producers
// write, five times over one folder. Every acknowledged record and every acknowledged
// commit must be there afterwards; records whose answer never came may be.
//
// SIGKILL leaves the page cache alone, so this shows that what is acknowledged has been
// written and that the files open after a torn end. That it has been synced too rests on
// kfake.SyncWrites; only a power cut would show it.
func TestKilledBrokerLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for some seconds")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	var acked [2]map[string]bool // by partition
	for p := range acked {
		acked[p] = map[string]bool{}
	}
	var commits [len(acked)]int64

	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var h hello
		if err := json.NewDecoder(out).Decode(&h); err != nil {
			t.Fatal(err)
		}
		tr := &kafka.Transport{SASL: plain.Mechanism{Username: h.User, Password: h.Password}}
		c := &kafka.Client{Addr: kafka.TCP(h.Addr), Transport: tr, Timeout: 2 * time.Second}
		if round == 0 {
			createTopic(t, c, "reads", len(acked))
		}
		var wg sync.WaitGroup
		for p := range acked {
			wg.Go(func() {
				for i := 0; ; i++ {
					value := fmt.Sprintf("%d-%d-%d", round, p, i)
					base, err := produce(t.Context(), c, "reads", p, value)
					if err != nil {
						return
					}
					acked[p][value] = true
					if err := commitOffset(t.Context(), c, "reads", p, base+1); err != nil {
						return
					}
					commits[p] = base + 1
				}
			})
		}
		time.Sleep(100*time.Millisecond + time.Duration(random.IntN(400))*time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		wg.Wait()
		tr.CloseIdleConnections()
	}

	s := start(t, Config{Dir: dir})
	c := kafkaClient(t, s)
	total := 0
	for p := range acked {
		there := map[string]bool{}
		for _, v := range readAll(t, c, "reads", p) {
			if there[v] {
				t.Errorf("partition %d holds %s twice", p, v)
			}
			there[v] = true
		}
		for v := range acked[p] {
			if !there[v] {
				t.Errorf("partition %d lost %s", p, v)
			}
		}
		total += len(acked[p])
	}
	t.Log("acknowledged: " + strconv.Itoa(total))
	if total < 50 {
		t.Errorf("only %d records were acknowledged: the test shows nothing", total)
	}
	for p, want := range commits {
		if got := committed(t, c, "matcher", "reads", p); got < want {
			t.Errorf("partition %d: commit %d, acknowledged %d", p, got, want)
		}
	}
}

// commitOffset commits for a group without members.
func commitOffset(ctx context.Context, c *kafka.Client, topic string, partition int, offset int64) error {
	resp, err := c.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: "matcher", GenerationID: -1,
		Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: partition, Offset: offset}}},
	})
	if err != nil {
		return err
	}
	return resp.Topics[topic][0].Error
}
