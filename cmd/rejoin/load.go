package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// key is one entry of the configuration: its dotted name and how a value from
// file, environment or flag gets into a Config.
type key struct {
	name string
	set  func(value any) error
}

// namedFaults are faults that name the part of a key that they are about.
type namedFaults []error

func (f namedFaults) Error() string { return errors.Join(f...).Error() }

// keys lists every key there is, bound to c.
func (c *Config) keys() []key {
	return []key{
		{"listen", text(&c.Listen)},
		{"admin.listen", text(&c.Admin.Listen)},
		{"server.hosts", list(&c.Server.Hosts)},
		{"server.trusted_proxies", list(&c.Server.TrustedProxies)},
		{"server.base_path", text(&c.Server.BasePath)},
		{"server.demo", flag(&c.Server.Demo)},
		{"server.http2", text(&c.Server.HTTP2)},
		{"store.url", text(&c.Store.URL)},
		{"bus.url", text(&c.Bus.URL)},
		{"bus.prefix", text(&c.Bus.Prefix)},
		{"bus.shards", number(&c.Bus.Shards)},
		{"bus.stream_length", number(&c.Bus.StreamLength)},
		{"bus.verify", duration(&c.Bus.Verify)},
		{"subscribe.heartbeat", duration(&c.Subscribe.Heartbeat)},
		{"subscribe.retry", duration(&c.Subscribe.Retry)},
		{"subscribe.write_timeout", duration(&c.Subscribe.WriteTimeout)},
		{"subscribe.max_age", duration(&c.Subscribe.MaxAge)},
		{"limits.event_bytes", number(&c.Limits.EventBytes)},
		{"limits.batch_events", number(&c.Limits.BatchEvents)},
		{"limits.batch_bytes", number(&c.Limits.BatchBytes)},
		{"limits.feeds_per_subscription", number(&c.Limits.FeedsPerSubscription)},
		{"limits.subscribers", number(&c.Limits.Subscribers)},
		{"limits.subscribers_per_address", number(&c.Limits.SubscribersPerAddress)},
		{"limits.memory", size(&c.Limits.Memory)},
		{"limits.publish_idle", duration(&c.Limits.PublishIdle)},
		{"limits.publishes_per_second", number(&c.Limits.PublishesPerSecond)},
		{"idempotency.window", duration(&c.Idempotency.Window)},
		{"retention", retention(&c.Retention)},
		{"auth.mode", one(func(value string) error {
			c.Auth.Mode, c.Auth.Written = value, true
			return nil
		})},
		{"auth.jwt.key", text(&c.Auth.JWT.Key)},
		{"auth.jwt.key_file", text(&c.Auth.JWT.KeyFile)},
		{"auth.jwt.jwks_url", text(&c.Auth.JWT.JWKSURL)},
		{"auth.jwt.algorithms", list(&c.Auth.JWT.Algorithms)},
		{"auth.jwt.issuer", text(&c.Auth.JWT.Issuer)},
		{"auth.jwt.audience", text(&c.Auth.JWT.Audience)},
		{"auth.forward.url", text(&c.Auth.Forward.URL)},
		{"auth.forward.ca_file", text(&c.Auth.Forward.CAFile)},
		{"auth.forward.timeout", duration(&c.Auth.Forward.Timeout)},
		{"auth.forward.cache", duration(&c.Auth.Forward.Cache)},
		{"auth.forward.recheck", duration(&c.Auth.Forward.Recheck)},
		{"auth.forward.grace", duration(&c.Auth.Forward.Grace)},
		{"auth.forward.concurrency", number(&c.Auth.Forward.Concurrency)},
		{"tls.cert", text(&c.TLS.Cert)},
		{"tls.key", text(&c.TLS.Key)},
		{"cors.origins", list(&c.CORS.Origins)},
		{"drain.delay", duration(&c.Drain.Delay)},
		{"drain.window", duration(&c.Drain.Window)},
		{"log.level", text(&c.Log.Level)},
		{"log.format", text(&c.Log.Format)},
		{"log.access", flag(&c.Log.Access)},
	}
}

func namesOf(keys []key) (names []string) {
	for _, k := range keys {
		names = append(names, k.name)
	}
	return names
}

// one is for keys that take one value, as it was written: YAML knows numbers
// and truth values; the keys know better what they want.
func one(set func(string) error) func(any) error {
	return func(value any) error {
		switch value.(type) {
		case string, int, int64, uint64, float64, bool:
			return set(fmt.Sprint(value))
		}
		return errors.New("it takes one value, not a list or a section")
	}
}

func text(to *string) func(any) error {
	return one(func(value string) error {
		*to = value
		return nil
	})
}

func duration(to *time.Duration) func(any) error {
	return one(func(value string) error {
		d, err := parseDuration(value)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 15s", value)
		}
		*to = d
		return nil
	})
}

// leadingDays matches the days at the beginning of a duration.
var leadingDays = regexp.MustCompile(`^([0-9]{1,6})d`)

// parseDuration is time.ParseDuration, with days of 24 hours in front: 30d, 1d12h.
func parseDuration(value string) (time.Duration, error) {
	match := leadingDays.FindStringSubmatch(value)
	if match == nil {
		return time.ParseDuration(value)
	}
	count, err := strconv.Atoi(match[1])
	const most = int(math.MaxInt64 / (24 * time.Hour))
	if err != nil || count > most-1 {
		return 0, errors.New("too long")
	}
	days := time.Duration(count) * 24 * time.Hour
	rest := value[len(match[0]):]
	if rest == "" {
		return days, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || more > 24*time.Hour {
		return 0, errors.New("not a duration")
	}
	return days + more, nil
}

func number(to *int) func(any) error {
	return one(func(value string) error {
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", value)
		}
		*to = n
		return nil
	})
}

func flag(to *bool) func(any) error {
	return one(func(value string) error {
		if value != "true" && value != "false" {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		*to = value == "true"
		return nil
	})
}

// sizeUnits are what a size may be counted in.
var sizeUnits = []struct {
	name  string
	bytes int
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}

// size is for numbers of bytes, which may have a unit.
func size(to *int) func(any) error {
	return one(func(value string) error {
		count, unit := value, 1
		for _, u := range sizeUnits {
			if digits, ok := strings.CutSuffix(value, u.name); ok {
				count, unit = strings.TrimSpace(digits), u.bytes
			}
		}
		n, err := strconv.Atoi(count)
		if err != nil || n < 0 || n > math.MaxInt/unit {
			return fmt.Errorf("%q is not a size such as 256MiB (KiB, MiB, GiB, or a number of bytes)", value)
		}
		*to = n * unit
		return nil
	})
}

// list is for keys that can have a list in the file; elsewhere, and there too,
// it may be written with commas.
func list(to *[]string) func(any) error {
	return func(value any) error {
		items, isList := value.([]any)
		if !isList {
			items = []any{value}
		}
		*to = nil
		for _, item := range items {
			err := one(func(text string) error {
				for part := range strings.SplitSeq(text, ",") {
					if part = strings.TrimSpace(part); part != "" {
						*to = append(*to, part)
					}
				}
				return nil
			})(item)
			text, _ := item.(string)
			if isList && (err != nil || strings.Contains(text, ",")) {
				return errors.New("it takes a list of single values")
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// flagKeys maps flags, where a command has them, to the keys that they set.
var flagKeys = map[string]string{
	"listen": "listen",
	"store":  "store.url",
	"bus":    "bus.url",
	"auth":   "auth.mode",
	"demo":   "server.demo",
}

// Load reads the configuration: flags win, then the environment, then the
// file, then the defaults. The file is the one that the flag --config or
// REJOIN_CONFIG names, or none. The error is a usage error with every fault.
func Load(flags *pflag.FlagSet) (Config, error) {
	l, err := loadConfig(flags)
	return l.config, err
}

// loaded is a configuration, and where it comes from.
type loaded struct {
	config Config
	values map[string]any // of the keys that are set, as they are written
	inFile map[string]any // the same for the file alone
	at     places
}

// loadConfig is Load with more to return.
func loadConfig(flags *pflag.FlagSet) (loaded, error) {
	l, faults, err := read(flags)
	if err != nil {
		return loaded{}, err
	}
	if err := l.at.join(append(faults, l.config.Validate())); err != nil {
		return loaded{}, err
	}
	return l, nil
}

// configFaults is every fault of a configuration.
type configFaults []error

func (f configFaults) Error() string {
	return "read configuration:\n" + errors.Join(f...).Error()
}

// join returns the faults, with their places, as one usage error.
func (p places) join(faults []error) error {
	if located := p.locate(faults); len(located) > 0 {
		return usageError{configFaults(located)}
	}
	return nil
}

// read reads the configuration without judging it as a whole. It returns the
// faults of single keys.
func read(flags *pflag.FlagSet) (l loaded, faults []error, err error) {
	keys := new(Config).keys()
	v := viper.New()
	file := configFile(flags)
	if faults, err = readConfigFile(v, file, keys); err != nil {
		return loaded{}, nil, usageError{err}
	}
	l.inFile = valuesOf(v, keys)
	l.at = findPlaces(file, flags, keys)
	faults = append(faults, checkEnvironment(os.Environ(), keys)...)
	if err := bind(v, flags, keys); err != nil {
		return loaded{}, nil, err
	}
	l.values = valuesOf(v, keys)
	c, wrong := configOf(l.values)
	l.config = c
	return l, append(faults, wrong...), nil
}

// valuesOf returns the values of the keys that are set. An empty variable counts as
// absent, a bare "key:" in the file too.
func valuesOf(v *viper.Viper, keys []key) map[string]any {
	values := make(map[string]any)
	for _, k := range keys {
		if v.IsSet(k.name) {
			values[k.name] = v.Get(k.name)
		}
	}
	return values
}

// configOf returns the configuration with these values, and their faults.
func configOf(values map[string]any) (c Config, faults []error) {
	c = DefaultConfig()
	for _, k := range c.keys() {
		value, ok := values[k.name]
		if !ok {
			continue
		}
		err := k.set(value)
		if named, ok := errors.AsType[namedFaults](err); ok {
			faults = append(faults, named...)
		} else if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", k.name, err))
		}
	}
	return c, faults
}

// configFile returns the name of the configuration file, "" for none.
func configFile(flags *pflag.FlagSet) string {
	if f := flags.Lookup("config"); f != nil && f.Changed {
		return f.Value.String()
	}
	return os.Getenv("REJOIN_CONFIG")
}

// readConfigFile reads the configuration file, unless its name is empty, and returns
// the faults of its keys. It has to come before bind: for viper, a bound key hides
// what the file has below it.
func readConfigFile(v *viper.Viper, name string, keys []key) (faults []error, err error) {
	if name == "" {
		return nil, nil
	}
	v.SetConfigFile(name)
	v.SetConfigType("yaml") // whatever the file is called
	if err := v.ReadInConfig(); err != nil {
		if parse, ok := errors.AsType[viper.ConfigParseError](err); ok {
			err = fmt.Errorf("%s: %s", name, yamlFault(parse.Unwrap()))
		}
		return nil, fmt.Errorf("read configuration file: %w", err)
	}
	for _, name := range slices.Sorted(slices.Values(v.AllKeys())) {
		isSection := slices.ContainsFunc(keys, func(k key) bool { return strings.HasPrefix(k.name, name+".") })
		isKey := slices.ContainsFunc(keys, func(k key) bool { return k.name == name })
		switch {
		case isKey, isSection && v.Get(name) == nil:
		case isSection:
			faults = append(faults, fmt.Errorf("%s: has keys below it, and no value of its own", name))
		default:
			faults = append(faults, fmt.Errorf("%s: no such key%s", name, suggest(name, namesOf(keys))))
		}
	}
	return faults, nil
}

// notMapping matches the part of a YAML fault that repeats what the file says,
// which may be a secret.
var notMapping = regexp.MustCompile("cannot unmarshal !![a-z]+( `.*`)? into .*")

// yamlFault returns in one line what is wrong with a file, and in which line if
// the parser knows.
func yamlFault(err error) string {
	fault := strings.TrimPrefix(err.Error(), "yaml: ")
	fault = strings.TrimPrefix(fault, "unmarshal errors:\n  ")
	fault = strings.ReplaceAll(fault, "\n  ", "; ")
	return notMapping.ReplaceAllString(fault, "a key with its value is wanted here, such as listen: 127.0.0.1:8080")
}

func bind(v *viper.Viper, flags *pflag.FlagSet, keys []key) error {
	for _, k := range keys {
		if err := v.BindEnv(k.name, variable(k.name)); err != nil {
			return fmt.Errorf("bind %s: %w", k.name, err)
		}
	}
	for flag, name := range flagKeys {
		if f := flags.Lookup(flag); f != nil {
			if err := v.BindPFlag(name, f); err != nil {
				return fmt.Errorf("bind --%s: %w", flag, err)
			}
		}
	}
	return nil
}

// variable returns the environment variable of a key.
func variable(name string) string {
	return "REJOIN_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
}

// injected matches what Kubernetes puts into the environment for each Service
// of the namespace: one named rejoin, or rejoin-redis, must not stop a start.
var injected = regexp.MustCompile(`^REJOIN_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// injectedPort matches the value of Kubernetes' REJOIN_PORT. With any other,
// it is someone's wish for another port, which listen is for.
var injectedPort = regexp.MustCompile(`^(tcp|udp|sctp)://`)

// checkEnvironment returns a fault for each variable that looks like a key and
// is none. It names no values: they may be secrets.
func checkEnvironment(environ []string, keys []key) (faults []error) {
	known := map[string]bool{"REJOIN_CONFIG": true, tokenVariable: true}
	for _, k := range keys {
		known[variable(k.name)] = true
	}
	names := slices.Sorted(maps.Keys(known))
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case !strings.HasPrefix(name, "REJOIN_"), known[name]:
		case strings.HasPrefix(name, "REJOIN_TEST_"):
		case injected.MatchString(name):
		case strings.HasSuffix(name, "_PORT") && injectedPort.MatchString(value):
		default:
			faults = append(faults, fmt.Errorf("%s: the environment variable belongs to no key%s", name, suggest(name, names)))
		}
	}
	return faults
}
