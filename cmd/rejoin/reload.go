package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// reloadable lists the beginnings of the keys that a running server takes over.
var reloadable = []string{"log.", "auth.", "cors.", "retention", "limits."}

// lookEvery is how often the files are looked at. A change counts when two looks in a
// row agree: a file may be seen while it is being written.
const lookEvery = time.Second

// reloader gives a running server the changes of its configuration.
type reloader struct {
	flags   *pflag.FlagSet
	running loaded // what the server runs with, and what the file has
	files   hashes // of the files, when they were read last
	fault   string // that has been logged
	logger  *slog.Logger

	// apply changes the server, or returns an error and changes nothing. If newKeys
	// is set, the keys may have changed that verify tokens.
	apply func(ctx context.Context, c Config, newKeys bool) error
}

// load loads what the server starts with.
func (r *reloader) load() (err error) {
	// A file that changes while it is read differs at the next look.
	r.files = hashesOf(map[string]string{"": configFile(r.flags)})
	if r.running, err = loadConfig(r.flags); err != nil {
		return err
	}
	maps.Copy(r.files, hashesOf(r.running.config.Auth.files()))
	return nil
}

// run reloads when the files have changed, and at each hangup, until ctx ends.
func (r *reloader) run(ctx context.Context, hangups <-chan os.Signal) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	last := r.files
	for {
		select {
		case <-hangups:
			r.fault = ""
			r.attempt(ctx)
		case <-ticker.C:
			now := r.look()
			switch {
			case maps.Equal(now, r.files):
				r.fault = ""
			case maps.Equal(now, last):
				r.attempt(ctx)
			}
			last = now
		case <-ctx.Done():
			return
		}
	}
}

// attempt reloads, and logs the faults if it cannot. A file with a fault is tried again
// at every look, because the fault may be elsewhere, such as in a file of keys.
func (r *reloader) attempt(ctx context.Context) {
	err := r.reload(ctx)
	if err == nil || ctx.Err() != nil {
		r.fault = ""
		return
	}
	if err.Error() == r.fault {
		return
	}
	r.fault = err.Error()
	faults := []error{err}
	if several, ok := errors.AsType[configFaults](err); ok {
		faults = several
	}
	for _, fault := range faults {
		r.logger.Error("the configuration has a fault; the server goes on with the one that it has", "fault", fault)
	}
}

func (r *reloader) reload(ctx context.Context) error {
	files := hashesOf(map[string]string{"": configFile(r.flags)})
	next, err := loadConfig(r.flags)
	if err != nil {
		return err
	}
	changed, restart := r.compare(next)
	values := maps.Clone(r.running.values)
	for _, name := range changed {
		delete(values, name)
		if value, ok := next.values[name]; ok {
			values[name] = value
		}
	}
	// What needs a restart may be what makes the rest valid.
	c, faults := configOf(values)
	if err := next.at.join(append(faults, c.Validate())); err != nil {
		return err
	}
	keyFiles := hashesOf(c.Auth.files())
	for name, hash := range keyFiles {
		if r.files[name] != hash && !slices.Contains(changed, name) {
			changed = append(changed, name)
		}
	}
	newKeys := slices.ContainsFunc(changed, func(name string) bool { return strings.HasPrefix(name, "auth.") })
	if err := r.apply(ctx, c, newKeys); err != nil {
		return next.at.join([]error{err})
	}
	r.running = loaded{config: c, values: values, inFile: next.inFile, at: next.at}
	maps.Copy(files, keyFiles)
	r.files = files
	r.logger.Info("the configuration has been reloaded", "changed", cmp.Or(strings.Join(changed, ", "), "nothing"))
	if len(restart) > 0 {
		r.logger.Warn("some keys have changed that need a restart", "keys", strings.Join(restart, ", "))
	}
	return nil
}

// compare returns the keys with new values that a running server takes over, and those
// that need a restart: others, and those that the environment or a flag overrides.
func (r *reloader) compare(next loaded) (changed, restart []string) {
	for _, k := range new(Config).keys() {
		name := k.name
		canReload := slices.ContainsFunc(reloadable, func(beginning string) bool { return strings.HasPrefix(name, beginning) })
		switch {
		case !sameValue(name, r.running.values, next.values) && canReload:
			changed = append(changed, name)
		case !sameValue(name, r.running.values, next.values):
			restart = append(restart, name)
		case sameValue(name, r.running.inFile, next.inFile):
		case !sameValue(name, next.inFile, next.values):
			restart = append(restart, fmt.Sprintf("%s (overridden by %s)", name, next.at.of(name)))
		}
	}
	return changed, restart
}

// sameValue reports whether a key means the same in both, however it is written.
func sameValue(name string, a, b map[string]any) bool {
	return reflect.DeepEqual(configWith(name, a), configWith(name, b))
}

// configWith returns the defaults with one of the values.
func configWith(name string, values map[string]any) Config {
	one := make(map[string]any)
	if value, ok := values[name]; ok {
		one[name] = value
	}
	c, _ := configOf(one)
	return c
}

// hashes stand for the contents of files, by the key that names the file; that of the
// configuration has none.
type hashes map[string]string

// look returns the hashes of the files that the server runs with.
func (r *reloader) look() hashes {
	files := map[string]string{"": configFile(r.flags)}
	maps.Copy(files, r.running.config.Auth.files())
	return hashesOf(files)
}

func hashesOf(files map[string]string) hashes {
	h := make(hashes)
	for key, file := range files {
		if file == "" {
			continue
		}
		// It follows symbolic links, so it sees when Kubernetes swaps them.
		content, err := os.ReadFile(file)
		if err != nil {
			content = []byte("cannot be read: " + err.Error())
		}
		h[key] = fmt.Sprintf("%x", sha256.Sum256(content))
	}
	return h
}
