package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// retention sets the rules of the key retention. The file has them as a list
// of sections, the environment as text with the same names:
//
//	feeds=chat:* age=30d events=100000, feeds=news events=10
func retention(to *[]feed.Rule) func(any) error {
	return func(value any) error {
		sections, err := retentionSections(value)
		if err != nil {
			return err
		}
		var rules []feed.Rule
		var faults namedFaults
		for i, members := range sections {
			rule, err := readRule(fmt.Sprintf("retention[%d]", i), members)
			faults = append(faults, err...)
			rules = append(rules, rule)
		}
		*to = rules
		if len(faults) > 0 {
			return faults
		}
		return nil
	}
}

// retentionSections returns the members of each rule.
func retentionSections(value any) (sections []map[string]any, err error) {
	switch value := value.(type) {
	case []any:
		for i, item := range value {
			members, ok := item.(map[string]any)
			if !ok {
				return nil, namedFaults{fmt.Errorf(`retention[%d]: it is a section such as {feeds: "chat:*", age: 30d}`, i)}
			}
			sections = append(sections, members)
		}
		return sections, nil
	case string:
		for i, rule := range strings.Split(value, ",") {
			members := map[string]any{}
			for _, field := range strings.Fields(rule) {
				name, v, ok := strings.Cut(field, "=")
				if _, twice := members[name]; !ok || twice {
					return nil, namedFaults{fmt.Errorf("retention[%d]: %q is not a member such as age=30d, given once", i, field)}
				}
				members[name] = v
			}
			sections = append(sections, members)
		}
		return sections, nil
	}
	return nil, errors.New("it is a list of rules")
}

// readRule reads one rule; name is what faults call it.
func readRule(name string, members map[string]any) (rule feed.Rule, faults namedFaults) {
	for _, member := range slices.Sorted(maps.Keys(members)) {
		var err error
		switch member {
		case "feeds":
			err = text(&rule.Feeds)(members[member])
		case "age":
			err = duration(&rule.Age)(members[member])
			if err == nil && rule.Age < time.Second {
				err = fmt.Errorf("%v is less than 1s", rule.Age)
			}
		case "events":
			err = one(func(value string) (err error) {
				if rule.Events, err = strconv.ParseUint(value, 10, 63); err != nil || rule.Events == 0 {
					return fmt.Errorf("%q is not a whole number from 1", value)
				}
				return nil
			})(members[member])
		default:
			err = errors.New("no such member; there are feeds, age and events")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s.%s: %w", name, member, err))
		}
	}
	if len(faults) > 0 {
		return rule, faults
	}
	return rule, checkRule(name, rule)
}

func checkRule(name string, rule feed.Rule) (faults namedFaults) {
	if rule.Feeds == "" {
		faults = append(faults, fmt.Errorf(`%s.feeds: it is missing, a feed or the beginning of feeds and *, such as "chat:*"`, name))
	} else if err := feed.CheckPattern(rule.Feeds); err != nil {
		faults = append(faults, fmt.Errorf("%s.feeds: %w", name, err))
	}
	if rule.Age == 0 && rule.Events == 0 {
		faults = append(faults, fmt.Errorf("%s: it has neither age nor events, so it would keep all", name))
	}
	return faults
}
