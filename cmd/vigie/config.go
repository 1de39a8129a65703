package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newConfigCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Print or check the settings", Args: cobra.NoArgs, RunE: help}
	var s settings
	show := &cobra.Command{
		Use:   "print",
		Short: "Print every setting as it holds, with its meaning and its variable; secrets are hidden",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.load(nil)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), c.Print())
			return err
		},
	}
	validate := &cobra.Command{
		Use:   "validate",
		Short: "Check the settings and say everything that is wrong with them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.load(nil)
			if err == nil {
				err = c.Complete()
			}
			if err != nil {
				return &exitError{code: 2, err: err}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "the settings are good")
			return err
		},
	}
	s.register(show)
	s.register(validate)
	cmd.AddCommand(show, validate)
	return cmd
}
