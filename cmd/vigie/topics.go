package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/app"
	"vigie/stream/kafka"
)

func newTopicsCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "topics", Short: "Make the Kafka topics, or check them", Args: cobra.NoArgs, RunE: help}
	var s settings
	var output string
	apply := &cobra.Command{
		Use:   "apply",
		Short: "Create the topics that are missing and set the policies of those that are there",
		Long: `Create the topics that are missing and set the policies of those that are there.
Nothing is ever deleted or shrunk. Running it again changes nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCluster(cmd.Context(), &s, func(ctx context.Context, c *kafka.Cluster, specs []kafka.TopicSpec) error {
				results, err := c.ApplyTopics(ctx, specs)
				if err != nil {
					return err
				}
				return print(cmd, output, results, func() {
					w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
					for _, r := range results {
						fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.Action, r.Detail)
					}
					w.Flush()
				})
			})
		},
	}
	check := &cobra.Command{
		Use:   "check",
		Short: "Compare the topics with the settings; exit 2 when they differ",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCluster(cmd.Context(), &s, func(ctx context.Context, c *kafka.Cluster, specs []kafka.TopicSpec) error {
				problems, err := c.CheckTopics(ctx, specs)
				if err != nil {
					return err
				}
				if problems == nil {
					problems = []kafka.TopicProblem{}
				}
				err = print(cmd, output, problems, func() {
					for _, p := range problems {
						fmt.Fprintln(cmd.OutOrStdout(), p.String())
					}
					if len(problems) == 0 {
						fmt.Fprintln(cmd.OutOrStdout(), "the topics are as the settings want them")
					}
				})
				if err == nil && len(problems) > 0 {
					err = &exitError{code: 2}
				}
				return err
			})
		},
	}
	for _, c := range []*cobra.Command{apply, check} {
		s.register(c)
		outputFlag(c, &output)
	}
	cmd.AddCommand(apply, check)
	return cmd
}

func withCluster(ctx context.Context, s *settings, f func(context.Context, *kafka.Cluster, []kafka.TopicSpec) error) error {
	cfg, err := s.load(nil)
	if err != nil {
		return err
	}
	if len(cfg.Kafka.Brokers) == 0 {
		return errors.New("kafka.brokers is empty: name the brokers in the file, or set VIGIE_KAFKA_BROKERS (the embedded Kafka makes its topics itself)")
	}
	specs, err := app.Topics(&cfg)
	if err != nil {
		return err
	}
	c, err := app.Cluster(&cfg, zap.NewNop())
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := app.Reach(ctx, c); err != nil {
		return err
	}
	return f(ctx, c, specs)
}
