package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// places maps keys, and their parts such as retention[0].age, to the place where they
// are set: a line of the file, a variable or a flag.
type places map[string]string

// findPlaces returns the place of each key that is set. Flags override the environment,
// and both override the file.
func findPlaces(file string, flags *pflag.FlagSet, keys []key) places {
	p := filePlaces(file)
	for _, k := range keys {
		if os.Getenv(variable(k.name)) != "" {
			p.override(k.name, variable(k.name))
		}
	}
	for flag, name := range flagKeys {
		if f := flags.Lookup(flag); f != nil && f.Changed {
			p.override(name, "--"+flag)
		}
	}
	return p
}

// override sets the place of a key, for all of its parts.
func (p places) override(name, place string) {
	for part := range p {
		if strings.HasPrefix(part, name+"[") {
			delete(p, part)
		}
	}
	p[name] = place
}

// filePlaces returns the lines of the keys in a file that is known to be YAML.
func filePlaces(file string) places {
	p := make(places)
	content, err := os.ReadFile(file)
	if err != nil {
		return p
	}
	var document yaml.Node
	if yaml.Unmarshal(content, &document) != nil {
		return p
	}
	var walk func(n *yaml.Node, name string)
	walk = func(n *yaml.Node, name string) {
		switch n.Kind {
		case yaml.DocumentNode:
			walk(n.Content[0], name)
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				below := strings.ToLower(n.Content[i].Value) // as viper has it
				if name != "" {
					below = name + "." + below
				}
				p[below] = fmt.Sprintf("%s:%d", file, n.Content[i].Line)
				walk(n.Content[i+1], below)
			}
		case yaml.SequenceNode:
			for i, item := range n.Content {
				below := fmt.Sprintf("%s[%d]", name, i)
				p[below] = fmt.Sprintf("%s:%d", file, item.Line)
				walk(item, below)
			}
		}
	}
	walk(&document, "")
	return p
}

// locate returns the faults one by one, each with the place of the key that it begins
// with, if that has one.
func (p places) locate(faults []error) (located []error) {
	for _, fault := range faults {
		several, ok := fault.(interface{ Unwrap() []error })
		if ok && strings.Contains(fault.Error(), "\n") {
			located = append(located, p.locate(several.Unwrap())...)
			continue
		}
		if fault == nil {
			continue
		}
		name, _, _ := strings.Cut(fault.Error(), ":")
		if place := p.of(name); place != "" {
			fault = fmt.Errorf("%s: %w", place, fault)
		}
		located = append(located, fault)
	}
	return located
}

// of returns the place of a key, or that of the key which it is a part of.
func (p places) of(name string) string {
	if place, ok := p[name]; ok {
		return place
	}
	rule, _, isPart := strings.Cut(name, "].")
	if place, ok := p[rule+"]"]; ok && isPart {
		return place
	}
	whole, _, _ := strings.Cut(name, "[")
	return p[whole]
}

// suggest returns "; did you mean X?" with the name that is nearest to a wrong one, or
// nothing if none is near.
func suggest(wrong string, names []string) string {
	best, least := "", len(wrong)/3+1
	for _, name := range names {
		if d := distance(wrong, name); d < least {
			best, least = name, d
		}
	}
	if best == "" {
		// Perhaps only the section is wrong or missing.
		_, last := cutLast(wrong)
		ends := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			_, end := cutLast(name)
			return end != last
		})
		if len(ends) == 1 {
			best = ends[0]
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

func cutLast(name string) (section, last string) {
	i := strings.LastIndex(name, ".")
	return name[:max(i, 0)], name[i+1:]
}

// distance counts the characters to insert, delete or replace to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
