package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script: what a person types and what the program
// answers. Scripts named real-* run on the real services.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			kafkaAddr, redisAddr := os.Getenv("VIGIE_TEST_KAFKA"), os.Getenv("VIGIE_TEST_REDIS")
			env.Setenv("KAFKA", kafkaAddr)
			env.Setenv("REDIS", redisAddr)
			env.Setenv("PREFIX", fmt.Sprintf("s%08x.", rand.Uint32()))
			busy, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			env.Defer(func() { busy.Close() })
			env.Setenv("BUSY", busy.Addr().String())
			free, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			env.Setenv("FREE", free.Addr().String())
			return free.Close()
		},
		Condition: func(cond string) (bool, error) {
			if cond != "services" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			have := os.Getenv("VIGIE_TEST_KAFKA") != "" && os.Getenv("VIGIE_TEST_REDIS") != ""
			if !have && os.Getenv("VIGIE_TEST_REQUIRE") != "" {
				return false, fmt.Errorf("set VIGIE_TEST_KAFKA and VIGIE_TEST_REDIS, or run make test")
			}
			return have, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// oneline FILE fails unless the file holds exactly one line.
			"oneline": func(ts *testscript.TestScript, _ bool, args []string) {
				text := strings.TrimSuffix(ts.ReadFile(args[0]), "\n")
				if text == "" || strings.Contains(text, "\n") {
					ts.Fatalf("%s holds %d lines:\n%s", args[0], strings.Count(text, "\n")+1, text)
				}
			},
			"await": await,
			// replace FILE OLD NEW does so wherever OLD stands.
			"replace": func(ts *testscript.TestScript, _ bool, args []string) {
				text := strings.ReplaceAll(ts.ReadFile(args[0]), args[1], args[2])
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
			},
		},
	})
}

// await URL waits until it answers 200.
func await(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(patience)
	for {
		resp, err := http.Get(args[0])
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s does not answer 200 within %v", args[0], patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
