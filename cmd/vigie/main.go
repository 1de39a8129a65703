// Command vigie is the whole of Vigie in one program: gateway, matcher,
// operator and patrol API, the demo, and the tools that look after them.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vigie/cmd/vigie/internal/config"
)

func main() { os.Exit(run()) }

// run is main with an exit code: 0 done, 1 failed, 2 the data was refused.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newRootCmd().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := 1
	var coded *exitError
	if errors.As(err, &coded) {
		code, err = coded.code, coded.err
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vigie:", err)
	}
	return code
}

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "vigie",
		Short: "Match plate reads against watchlists and bring hits to patrols",
		Long: `Vigie takes plate reads from roadside sensors through Kafka, matches each one in
memory against the services' watchlists, and puts hits into Redis-backed queues
for patrols.

Start with "vigie demo": it needs nothing else and shows the whole of it.
Exit codes: 0 done, 1 failed, 2 the data given was refused.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          help,
	}
	root.AddCommand(
		newDemoCmd(), newServeCmd(), newExplainCmd(), newListsCmd(), newEntriesCmd(), newSensorsCmd(),
		newLoadCmd(), newSimCmd(),
		newTopicsCmd(), newReplayCmd(), newConfigCmd(), newVersionCmd(),
	)
	return root
}

// help is what a command that only holds others does. Being run at all makes
// cobra refuse a word that is no command.
func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// settings are the flags that give a configuration.
type settings struct {
	file string
	set  map[string]string
}

func (s *settings) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.file, "config", os.Getenv("VIGIE_CONFIG"), "YAML file of settings (or VIGIE_CONFIG); `file`")
	cmd.Flags().StringToStringVar(&s.set, "set", nil, "one setting over file and environment, such as kafka.prefix=test.; `key=value`")
}

// load reads the configuration; more are settings given by named flags.
func (s *settings) load(more map[string]string) (config.Config, error) {
	set := map[string]string{}
	maps.Copy(set, s.set)
	maps.Copy(set, more)
	return config.Load(s.file, os.Environ(), set)
}

// newLogger logs JSON lines to stderr. What can repeat itself is sampled: the
// first ten of a message each second, then every hundredth.
func newLogger(level string) (*zap.Logger, error) {
	lvl, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	zc := zap.NewProductionConfig()
	zc.Level = zap.NewAtomicLevelAt(lvl)
	zc.Sampling = &zap.SamplingConfig{Initial: 10, Thereafter: 100}
	zc.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	zc.EncoderConfig.TimeKey = "time"
	zc.DisableStacktrace = true
	zc.DisableCaller = true
	return zc.Build()
}

func newVersionCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version  string `json:"version"`
				Revision string `json:"revision,omitempty"`
				Go       string `json:"go"`
			}{Version: "devel"}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Go = info.GoVersion
				if info.Main.Version != "" {
					v.Version = info.Main.Version
				}
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			return print(cmd, output, v, func() {
				fmt.Fprintf(cmd.OutOrStdout(), "vigie %s %s\n", v.Version, v.Go)
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
