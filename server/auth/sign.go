package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Sign returns a token with these rights and this lifetime, for a verifier with the same
// options. The options determine the key (Key, or KeyFile with a secret or a private key
// as PEM), the algorithm (the first that both the key and Algorithms allow), iss and
// aud.
func Sign(o Options, rights Rights, lifetime time.Duration) (string, error) {
	if err := rights.Check(); err != nil {
		return "", err
	}
	if lifetime <= 0 {
		return "", fmt.Errorf("the lifetime of a token has to be positive, not %v", lifetime)
	}
	algorithms, private, err := o.signingKey()
	if err != nil {
		return "", err
	}
	now := time.Now()
	c := struct {
		jwt.RegisteredClaims
		Rights Rights `json:"rejoin"`
	}{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    o.Issuer,
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(lifetime)),
		},
		Rights: rights,
	}
	if o.Audience != "" {
		c.Audience = jwt.ClaimStrings{o.Audience}
	}
	token, err := jwt.NewWithClaims(jwt.GetSigningMethod(algorithms[0]), c).SignedString(private)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}

// signingKey returns the signing key and its algorithms.
func (o Options) signingKey() (algorithms []string, private any, err error) {
	if o.Key != "" {
		k, err := secretKey([]byte(o.Key), o.Algorithms)
		return k.algorithms, k.public, prefix("key", err)
	}
	if o.KeyFile == "" {
		return nil, nil, errors.New("key: there is no key to sign tokens with: set key or key_file")
	}
	content, err := os.ReadFile(o.KeyFile)
	if err != nil {
		return nil, nil, prefix("key_file", err)
	}
	if !bytes.Contains(content, []byte(pemBegin)) {
		k, err := fileSecret(content, o.Algorithms)
		return k.algorithms, k.public, prefix("key_file", err)
	}
	signer, err := parsePrivate(content)
	if err != nil {
		return nil, nil, prefix("key_file", err)
	}
	k, err := publicKey(signer.Public())
	if err == nil {
		err = k.narrow(o.Algorithms)
	}
	return k.algorithms, signer, prefix("key_file", err)
}

func parsePrivate(content []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, errors.New("it begins like PEM but cannot be parsed")
	}
	var private any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("it has a PEM block of type %.40q, not a private key, which signing needs", block.Type)
	}
	if err != nil {
		return nil, errors.New("its private key cannot be read")
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("its private key cannot sign")
	}
	return signer, nil
}
