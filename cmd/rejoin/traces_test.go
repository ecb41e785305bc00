package main

import "testing"

func TestTracesWanted(t *testing.T) {
	const endpoint, exporter, protocol, disabled = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SDK_DISABLED"
	for _, test := range []struct {
		env    map[string]string
		wanted bool
		fault  bool
	}{
		{nil, false, false},
		{map[string]string{endpoint: "http://localhost:4318"}, true, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318"}, true, false},
		{map[string]string{exporter: "otlp"}, true, false},
		{map[string]string{endpoint: "http://localhost:4318", exporter: "none"}, false, false},
		{map[string]string{endpoint: "http://localhost:4318", disabled: "true"}, false, false},
		{map[string]string{endpoint: "http://localhost:4318", disabled: "no"}, true, false},
		{map[string]string{exporter: "zipkin"}, false, true},
		{map[string]string{exporter: "otlp", protocol: "grpc"}, false, true},
		{map[string]string{protocol: "grpc"}, false, false},
	} {
		for _, name := range []string{endpoint, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", exporter, protocol, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", disabled} {
			t.Setenv(name, test.env[name])
		}
		if wanted, err := tracesWanted(); wanted != test.wanted || (err != nil) != test.fault {
			t.Errorf("%v: %t, %v", test.env, wanted, err)
		}
	}
}
