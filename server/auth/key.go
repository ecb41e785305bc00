package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// key verifies signatures made with its algorithms.
type key struct {
	id         string // kid in a key set; may be empty
	algorithms []string
	public     crypto.PublicKey // or a secret, as []byte
}

// secretBytes has the minimum length of a secret: that of the hash (RFC 7518, section
// 3.2).
var secretBytes = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

var (
	secretAlgorithms  = []string{"HS256", "HS384", "HS512"}
	rsaAlgorithms     = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	curveAlgorithms   = map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
	ed25519Algorithms = []string{"EdDSA"}
	publicAlgorithms  = slices.Concat(rsaAlgorithms, []string{"ES256", "ES384", "ES512"}, ed25519Algorithms)
)

// minRSABits is the minimum of RFC 7518, section 3.3.
const minRSABits = 2048

// readKey returns the key in Key or KeyFile.
func (o Options) readKey() (key, error) {
	if o.Key != "" {
		k, err := secretKey([]byte(o.Key), o.Algorithms)
		return k, prefix("key", err)
	}
	content, err := os.ReadFile(o.KeyFile)
	if err != nil {
		return key{}, prefix("key_file", err)
	}
	if bytes.Contains(content, []byte(pemBegin)) {
		public, err := parsePublic(content)
		if err != nil {
			return key{}, prefix("key_file", err)
		}
		k, err := publicKey(public)
		if err == nil {
			err = k.narrow(o.Algorithms)
		}
		return k, prefix("key_file", err)
	}
	k, err := fileSecret(content, o.Algorithms)
	return k, prefix("key_file", err)
}

func prefix(option string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	return nil
}

const pemBegin = "-----BEGIN"

func parsePublic(content []byte) (crypto.PublicKey, error) {
	block, rest := pem.Decode(content)
	if block == nil {
		return nil, errors.New("it begins like PEM but cannot be parsed")
	}
	if bytes.Contains(rest, []byte(pemBegin)) {
		return nil, errors.New("it has more than one PEM block")
	}
	switch {
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("it has a private key; to verify tokens, use the public key alone (openssl pkey -pubout)")
	case block.Type == "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	}
	return nil, fmt.Errorf("it has a PEM block of type %.40q, not PUBLIC KEY", block.Type)
}

func publicKey(public crypto.PublicKey) (key, error) {
	switch p := public.(type) {
	case *rsa.PublicKey:
		if bits := p.N.BitLen(); bits < minRSABits {
			return key{}, fmt.Errorf("an RSA key of %d bits is too short, the minimum is %d", bits, minRSABits)
		}
		return key{algorithms: rsaAlgorithms, public: p}, nil
	case *ecdsa.PublicKey:
		algorithm, ok := curveAlgorithms[p.Curve.Params().Name]
		if !ok {
			return key{}, fmt.Errorf("the curve %s has no algorithm", p.Curve.Params().Name)
		}
		return key{algorithms: []string{algorithm}, public: p}, nil
	case ed25519.PublicKey:
		return key{algorithms: ed25519Algorithms, public: p}, nil
	}
	return key{}, errors.New("it is not a public RSA, EC or Ed25519 key")
}

// narrow removes the key's algorithms that are not among these. An empty list removes
// none.
func (k *key) narrow(algorithms []string) error {
	if len(algorithms) == 0 {
		return nil
	}
	both := slices.DeleteFunc(slices.Clone(k.algorithms), func(a string) bool { return !slices.Contains(algorithms, a) })
	if len(both) == 0 {
		return fmt.Errorf("it is a key for %s, and algorithms lists none of these", strings.Join(k.algorithms, ", "))
	}
	k.algorithms = both
	return nil
}

// fileSecret returns the secret in a file. It refuses keys in other forms: a public key
// must not serve as a secret.
func fileSecret(content []byte, algorithms []string) (key, error) {
	content, _ = bytes.CutSuffix(content, []byte("\n"))
	content, _ = bytes.CutSuffix(content, []byte("\r"))
	if _, err := x509.ParsePKIXPublicKey(content); err == nil {
		return key{}, errors.New("it has a public key in binary form; it should be PEM")
	}
	for _, beginning := range []string{"ssh-", "ecdsa-", "{"} {
		if bytes.HasPrefix(content, []byte(beginning)) {
			return key{}, fmt.Errorf("it begins with %s: a public key should be PEM, and a secret must not begin like one", beginning)
		}
	}
	return secretKey(content, algorithms)
}

func secretKey(secret []byte, algorithms []string) (key, error) {
	if len(secret) < secretBytes["HS256"] {
		return key{}, fmt.Errorf("a secret of %d bytes is too short, the minimum is %d (openssl rand -hex 32)", len(secret), secretBytes["HS256"])
	}
	k := key{public: secret}
	for _, name := range secretAlgorithms {
		switch {
		case len(secret) >= secretBytes[name]:
			k.algorithms = append(k.algorithms, name)
		case slices.Contains(algorithms, name):
			return key{}, fmt.Errorf("a secret of %d bytes is too short for %s, which needs %d", len(secret), name, secretBytes[name])
		}
	}
	return k, k.narrow(algorithms)
}

// oneKey is a source with a single key. It ignores the token's kid.
type oneKey struct{ key }

func (o oneKey) keys(context.Context, string) ([]key, error) { return []key{o.key}, nil }
