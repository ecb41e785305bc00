package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/server/auth"
)

func newTokenCommand() *cobra.Command {
	var rights auth.Rights
	var lifetime time.Duration
	var privateKey string
	cmd := &cobra.Command{
		Use:   "token [--subscribe FEEDS] [--publish FEEDS] [--close FEEDS] [--admin]",
		Short: "Make a token and print it",
		Long: `Token makes a token that a server with the same auth.jwt accepts, and prints it.

It signs the token with the secret in auth.jwt.key or auth.jwt.key_file, which the
environment has as REJOIN_AUTH_JWT_KEY and REJOIN_AUTH_JWT_KEY_FILE. If the
server has a public key, give the private one with --private-key. FEEDS are names
of feeds, or beginnings of names followed by *, separated by commas.`,
		Example: `  rejoin token --subscribe 'chat:*' --publish chat:42 --for 1h
  REJOIN_TOKEN=$(rejoin token --subscribe '*') rejoin tail log
  REJOIN_TOKEN=$(rejoin token --admin) rejoin feeds`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, faults, err := read(cmd.Flags())
			if err != nil {
				return err
			}
			if err := l.at.join(faults); err != nil {
				return err
			}
			token, err := makeToken(l.config.Auth.JWT, privateKey, rights, lifetime)
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	flags := cmd.Flags()
	flags.String("config", "", "the configuration file (or REJOIN_CONFIG)")
	flags.StringSliceVar(&rights.Subscribe, "subscribe", nil, "the feeds that the bearer may read")
	flags.StringSliceVar(&rights.Publish, "publish", nil, "the feeds that the bearer may publish to and close")
	flags.StringSliceVar(&rights.Close, "close", nil, "the feeds that the bearer may close, and do nothing else with")
	flags.BoolVar(&rights.Admin, "admin", false, "allow deleting, trimming and listing")
	flags.DurationVar(&lifetime, "for", time.Hour, "how long the token is valid")
	flags.StringVar(&privateKey, "private-key", "", "a file with the private key to sign with, as PEM")
	return cmd
}

func makeToken(c JWTConfig, privateKey string, rights auth.Rights, lifetime time.Duration) (string, error) {
	switch {
	case len(rights.Subscribe) == 0 && len(rights.Publish) == 0 && len(rights.Close) == 0 && !rights.Admin:
		return "", errors.New("it would allow nothing: give --subscribe, --publish, --close or --admin")
	case lifetime < time.Second:
		return "", fmt.Errorf("--for: %v is not a second or more", lifetime)
	}
	if err := rights.Check(); err != nil {
		return "", err
	}
	option := jwtKey
	if privateKey != "" {
		c.Key, c.KeyFile = "", privateKey
		option = "--private-key: "
	}
	token, err := auth.Sign(c.options(nil), rights, lifetime)
	if err != nil {
		return "", fmt.Errorf(option+"%w", err)
	}
	return token, nil
}
