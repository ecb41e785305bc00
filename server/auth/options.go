package auth

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Options configures which tokens are valid. Exactly one of Key, KeyFile and JWKSURL is
// set.
type Options struct {
	// Key is the secret that tokens are signed with.
	Key string
	// KeyFile is a file with the secret, or with the public key as PEM. One line
	// break at the end of the file is not part of the secret.
	KeyFile string
	// JWKSURL is the address of a JSON Web Key Set (RFC 7517) with public keys.
	JWKSURL string
	// Algorithms limits the algorithms; empty means all that the key allows. A
	// secret allows HS256, HS384 and HS512, each only if it is as long as the hash
	// (RFC 7518, section 3.2); an RSA key RS and PS, an EC key the ES of its curve,
	// an Ed25519 key EdDSA.
	Algorithms []string
	// Issuer, if set, must be the iss of tokens.
	Issuer string
	// Audience, if set, must be in the aud of tokens.
	Audience string
	// Transport fetches JWKSURL; nil means http.DefaultTransport.
	Transport http.RoundTripper
	// Logger receives messages for operators; nil means slog.Default.
	Logger *slog.Logger
}

// Faults returns the errors in o that it can find without files and networks. Each begins
// with the name of the option in the configuration, and contains no secret.
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
		return append(faults, fmt.Errorf("key: it must be a secret; put a PEM key into a file, and its name into key_file"))
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
		return []error{fmt.Errorf("key: there is no key to verify tokens with: set key, key_file or jwks_url")}
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
			faults = append(faults, fmt.Errorf("algorithms: %s needs a secret, but jwks_url has public keys", algorithm))
		}
	}
	return faults
}
