package auth_test

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rejoin/rejoin/server/auth"
)

// all are the algorithms that the JWT library knows.
var all = jwt.GetAlgorithms()

// TestAlgorithms: only the key decides which algorithms are accepted. The
// configuration can remove some of them.
func TestAlgorithms(t *testing.T) {
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, p384, p521 := ecKey(elliptic.P256()), ecKey(elliptic.P384()), ecKey(elliptic.P521())
	rs := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	for _, test := range []struct {
		name       string
		o          auth.Options
		algorithms []string
	}{
		{"secret", auth.Options{Key: secret}, []string{"HS256", "HS384", "HS512"}},
		{"48 bytes", auth.Options{Key: secret[:48]}, []string{"HS256", "HS384"}},
		{"32 bytes", auth.Options{Key: secret[:32]}, []string{"HS256"}},
		{"secret in a file", auth.Options{KeyFile: file(t, secret+"\n")}, []string{"HS256", "HS384", "HS512"}},
		{"of Windows", auth.Options{KeyFile: file(t, secret+"\r\n")}, []string{"HS256", "HS384", "HS512"}},
		{"narrowed", auth.Options{Key: secret, Algorithms: []string{"HS512", "RS256"}}, []string{"HS512"}},
		{"RSA", auth.Options{KeyFile: file(t, publicPEM(rsaKey()))}, rs},
		{"RSA, the older form", auth.Options{KeyFile: file(t, pkcs1(rsaKey()))}, rs},
		{"RSA narrowed", auth.Options{KeyFile: file(t, publicPEM(rsaKey())), Algorithms: []string{"PS256", "ES256"}}, []string{"PS256"}},
		{"P-256", auth.Options{KeyFile: file(t, publicPEM(p256))}, []string{"ES256"}},
		{"P-384", auth.Options{KeyFile: file(t, publicPEM(p384))}, []string{"ES384"}},
		{"P-521", auth.Options{KeyFile: file(t, publicPEM(p521))}, []string{"ES512"}},
		{"Ed25519", auth.Options{KeyFile: file(t, publicPEM(edKey))}, []string{"EdDSA"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := open(t, test.o)
			for _, algorithm := range all {
				var key any
				switch algorithm[0] {
				case 'n':
					key = jwt.UnsafeAllowNoneSignatureType
				case 'H':
					key = []byte(cmp.Or(test.o.Key, secret))
				case 'R', 'P':
					key = rsaKey()
				case 'E':
					key = map[string]crypto.Signer{"ES256": p256, "ES384": p384, "ES512": p521, "EdDSA": edKey}[algorithm]
				}
				token := sign(algorithm, key, good())
				if slices.Contains(test.algorithms, algorithm) {
					wantGood(t, v, token)
				} else {
					wantBad(t, v, token, "not accepted here")
				}
			}
		})
	}
}

func pkcs1(key *rsa.PrivateKey) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)}))
}

// TestOpenRefuses: a server that checks tokens with the wrong key is worse than one
// that does not start.
func TestOpenRefuses(t *testing.T) {
	der := string(must(x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)))
	p224 := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(&must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).PublicKey))}))
	for _, test := range []struct {
		name string
		o    auth.Options
		want string
	}{
		{"nothing", auth.Options{}, "key: there is no key to"},
		{"two", auth.Options{Key: secret, JWKSURL: "https://h/"}, "key: only one of key, jwks_url"},
		{"two others", auth.Options{KeyFile: "f", JWKSURL: "https://h/"}, "key_file: only one of key_file, jwks_url"},
		{"a short secret", auth.Options{Key: secret[:31]}, "key: a secret of 31 bytes is too short, the minimum is 32"},
		{"a secret too short for its algorithm", auth.Options{Key: secret[:32], Algorithms: []string{"HS512"}}, "key: a secret of 32 bytes is too short for HS512, which needs 64"},
		{"a short secret in a file", auth.Options{KeyFile: file(t, secret[:31]+"\n")}, "key_file: a secret of 31 bytes"},
		{"a secret and RS256", auth.Options{Key: secret, Algorithms: []string{"RS256"}}, "key: it is a key for HS256"},
		{"PEM as a secret", auth.Options{Key: publicPEM(rsaKey())}, "key: it must be a secret"},
		{"an unknown algorithm", auth.Options{Key: secret, Algorithms: []string{"HS265"}}, `algorithms: "HS265" is not one of`},
		{"none", auth.Options{Key: secret, Algorithms: []string{"none"}}, `algorithms: "none" is not one of`},
		{"HS256 by JWKS", auth.Options{JWKSURL: "https://h/", Algorithms: []string{"HS256"}}, "algorithms: HS256 needs a secret"},
		{"an RSA key and HS256", auth.Options{KeyFile: file(t, publicPEM(rsaKey())), Algorithms: []string{"HS256"}}, "key_file: it is a key for RS256"},
		{"the wrong curve", auth.Options{KeyFile: file(t, publicPEM(ecKey(elliptic.P384()))), Algorithms: []string{"ES256"}}, "key_file: it is a key for ES384"},
		{"a private key", auth.Options{KeyFile: file(t, privatePEM(rsaKey()))}, "key_file: it has a private key"},
		{"a certificate", auth.Options{KeyFile: file(t, strings.ReplaceAll(publicPEM(rsaKey()), "PUBLIC KEY", "CERTIFICATE"))}, "key_file: it has a PEM block of type \"CERTIFICATE\""},
		{"two keys", auth.Options{KeyFile: file(t, publicPEM(rsaKey())+publicPEM(rsaKey()))}, "key_file: it has more than one"},
		{"broken PEM", auth.Options{KeyFile: file(t, "-----BEGIN PUBLIC KEY-----\nxx")}, "key_file: it begins like PEM"},
		{"not DER inside", auth.Options{KeyFile: file(t, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")}, "key_file: "},
		{"a binary public key", auth.Options{KeyFile: file(t, der)}, "key_file: it has a public key in binary form"},
		{"a key of ssh", auth.Options{KeyFile: file(t, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPqxOX")}, "key_file: it begins with ssh-"},
		{"a JWK", auth.Options{KeyFile: file(t, `{"kty":"oct","k":"0123456789abcdef0123456789abcdef"}`)}, "key_file: it begins with {"},
		{"a short RSA key", auth.Options{KeyFile: file(t, publicPEM(must(rsa.GenerateKey(rand.Reader, 1024))))}, "key_file: an RSA key of 1024 bits"},
		{"a curve without algorithm", auth.Options{KeyFile: file(t, p224)}, "key_file: the curve P-224"},
		{"no file", auth.Options{KeyFile: "/nowhere/key"}, "key_file: open /nowhere/key"},
		{"an address that is none", auth.Options{JWKSURL: "h/jwks.json"}, "jwks_url: it is not an address"},
		{"a file as address", auth.Options{JWKSURL: "file:///etc/jwks.json"}, "jwks_url: it is not an address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := auth.Open(t.Context(), test.o)
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && test.o.Key != "" && strings.Contains(err.Error(), test.o.Key) {
				t.Errorf("%v prints the secret", err)
			}
		})
	}
}
