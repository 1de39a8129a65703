package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/app"
	"vigie/cmd/vigie/internal/config"
)

func newServeCmd() *cobra.Command {
	var s settings
	var target, data, addr string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the service, or some of its parts",
		Long: `Run the service, or the parts that --target names: gateway takes reads in,
matcher turns them into alerts, operator keeps the lists, patrol hands alerts
out. Without kafka.brokers and redis.addr it runs both inside the process, for
evaluation only, bound to this machine, with random tokens printed at the start.

SIGINT and SIGTERM end it cleanly: batches in hand are finished and committed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			named := map[string]string{}
			for flag, key := range map[string]string{"target": "target", "data": "data", "http": "http.addr"} {
				if f := cmd.Flags().Lookup(flag); f.Changed {
					named[key] = f.Value.String()
				}
			}
			cfg, err := s.load(named)
			if err != nil {
				return err
			}
			if err := cfg.Complete(); err != nil {
				return err
			}
			log, err := newLogger(cfg.Log.Level)
			if err != nil {
				return err
			}
			a, err := app.New(cmd.Context(), cfg, log)
			if err != nil {
				if cmd.Context().Err() != nil {
					return errors.New("told to stop before it had started")
				}
				return err
			}
			announce(cmd.ErrOrStderr(), &cfg, a)
			log.Info("serving", zap.String("url", a.URL()), zap.String("target", cfg.Target), zap.Bool("embedded", cfg.Embedded()))
			if err := a.Run(cmd.Context()); err != nil {
				return err
			}
			log.Info("stopped cleanly")
			return nil
		},
	}
	s.register(cmd)
	cmd.Flags().StringVar(&target, "target", "all", "parts to run: all, or a list of gateway, matcher, operator, patrol")
	cmd.Flags().StringVar(&data, "data", "", "folder in which the embedded Kafka keeps reads, lists and hits")
	cmd.Flags().StringVar(&addr, "http", "127.0.0.1:8080", "address to listen on")
	return cmd
}

// announce prints what a person needs to reach an embedded service.
func announce(w io.Writer, cfg *config.Config, a *app.App) {
	if cfg.Embedded() {
		fmt.Fprintln(w, "EVALUATION: Kafka and Redis run inside this process, for one machine only.")
	}
	secrets := a.Secrets()
	if secrets == nil {
		return
	}
	fmt.Fprintf(w, "Tokens of this run (http.tokens_file keeps your own):\n")
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		fmt.Fprintf(w, "  %-9s %s\n", name, secrets[name])
	}
	fmt.Fprintf(w, "Alerts, live:  %s/#queue=patrol&token=%s\n", a.URL(), secrets["patrol"])
	fmt.Fprintf(w, "As operator:   VIGIE_SERVER=%s VIGIE_TOKEN=%s vigie lists\n", a.URL(), secrets["operator"])
}
