package auth

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Options says which tokens are good. Exactly one of Key, KeyFile and JWKSURL
// is set.
type Options struct {
	// Key is the secret that tokens are signed with.
	Key string
	// KeyFile is a file with the secret, or with the public key as PEM. One
	// line break at the end of a secret does not belong to it.
	KeyFile string
	// JWKSURL is where the public keys are, as a JSON Web Key Set (RFC 7517).
	JWKSURL string
	// Algorithms narrows what the key allows; empty means all of that. A secret
	// allows HS256, HS384 and HS512, each if it is as long as its hash (RFC
	// 7518, section 3.2); an RSA key RS and PS, an EC key the ES of its curve,
	// an Ed25519 key EdDSA.
	Algorithms []string
	// Issuer is the iss that tokens must have, if set.
	Issuer string
	// Audience must be in the aud of tokens, if set.
	Audience string
	// Transport fetches JWKSURL; nil means http.DefaultTransport.
	Transport http.RoundTripper
	// Logger gets what operators should see; nil means slog.Default.
	Logger *slog.Logger
}

// Faults returns what is wrong with o, as far as it shows without looking at
// files and networks. Each error begins with the name of the option as it is
// in the configuration, and holds no secret.
func (o Options) Faults() []error {
	faults := slices.Concat(o.sourceFaults(), o.algorithmFaults())
	if o.JWKSURL != "" {
		u, err := url.Parse(o.JWKSURL)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			faults = append(faults, fmt.Errorf("jwks_url: it is not an address such as https://example.com/.well-known/jwks.json"))
		}
	}
	if o.Key == "" {
		return faults
	}
	if strings.Contains(o.Key, pemBegin) {
		return append(faults, fmt.Errorf("key: it is a secret as it is; a PEM key belongs in a file, and its name in key_file"))
	}
	if _, err := secretKey([]byte(o.Key), o.Algorithms); err != nil {
		faults = append(faults, fmt.Errorf("key: %w", err))
	}
	return faults
}

func (o Options) sourceFaults() []error {
	var given []string
	for _, source := range []struct{ name, value string }{{"key", o.Key}, {"key_file", o.KeyFile}, {"jwks_url", o.JWKSURL}} {
		if source.value != "" {
			given = append(given, source.name)
		}
	}
	switch len(given) {
	case 0:
		return []error{fmt.Errorf("key: nothing says what tokens are verified with: set it, key_file or jwks_url")}
	case 1:
		return nil
	}
	return []error{fmt.Errorf("%s: only one of %s can be set", given[0], strings.Join(given, ", "))}
}

func (o Options) algorithmFaults() (faults []error) {
	all := slices.Concat(secretAlgorithms, publicAlgorithms)
	for _, algorithm := range o.Algorithms {
		switch {
		case !slices.Contains(all, algorithm):
			faults = append(faults, fmt.Errorf("algorithms: %.40q is not one of %s", algorithm, strings.Join(all, ", ")))
		case o.JWKSURL != "" && slices.Contains(secretAlgorithms, algorithm):
			faults = append(faults, fmt.Errorf("algorithms: %s takes a secret, and jwks_url has public keys", algorithm))
		}
	}
	return faults
}
