package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// insideTorture marks the process that runs the torture in namespaces of its
// own: nothing that it does to networks, mounts and processes outlives it.
const insideTorture = "REJOIN_TEST_TORTURE_INSIDE"

// namespaces says why the torture cannot run in namespaces of its own; nil if
// it can.
func namespaces() error {
	if os.Getuid() != 0 {
		return errors.New("only root may make namespaces")
	}
	for _, program := range []string{"ip", "nft", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing: apt-get install iproute2 nftables util-linux", program)
		}
	}
	cmd := exec.Command("nft", "list", "ruleset")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft in a network namespace: %w: %s", err, out)
	}
	return nil
}

// enterNamespaces runs this test again in namespaces of its own.
func enterNamespaces(t *testing.T, args []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-test.run=^" + t.Name() + "$"}, args...)...)
	cmd.Env = append(os.Environ(), insideTorture+"="+built(t, false))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("the torture, in namespaces of its own: %v", err)
	}
}

// bridgeAddress is where nodes reach the test, and its proxies, from their
// namespaces.
const bridgeAddress = "10.77.0.1"

// setUpNamespaces makes these namespaces fit to live in.
func setUpNamespaces() error {
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return runAll(
		"ip link set lo up",
		"ip link add name bridge0 type bridge forward_delay 0",
		"ip addr add "+bridgeAddress+"/16 dev bridge0",
		"ip link set bridge0 up",
	)
}

func runAll(commands ...string) error {
	for _, command := range commands {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
	}
	return nil
}

// tortureNet is the network namespace of one node.
type tortureNet struct {
	address string
	pid     int // of the process that holds it
}

var tortureNets atomic.Int32

// newTortureNet makes a namespace and links it to the bridge.
func newTortureNet(t testing.TB) *tortureNet {
	t.Helper()
	n := tortureNets.Add(1)
	holder := exec.Command("sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	link := fmt.Sprintf("node%d", n)
	t.Cleanup(func() {
		_ = holder.Process.Kill() // it does nothing else
		_ = holder.Wait()         // the link goes with the namespace
	})
	net := &tortureNet{address: fmt.Sprintf("10.77.%d.%d", n/200, 10+n%200), pid: holder.Process.Pid}
	err := errors.Join(
		runAll(
			fmt.Sprintf("ip link add name %s type veth peer name eth0 netns %d", link, net.pid),
			fmt.Sprintf("ip link set %s master bridge0 up", link),
		),
		net.run("ip link set lo up"),
		net.run("ip addr add "+net.address+"/16 dev eth0"),
		net.run("ip link set eth0 up"),
		net.run("nft add table ip torture"),
		net.run("nft add chain ip torture in { type filter hook input priority 0 ; }"),
		net.run("nft add chain ip torture out { type filter hook output priority 0 ; }"),
	)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// enter returns the words that have a command run in the namespace.
func (n *tortureNet) enter() []string { return []string{"nsenter", "-t", strconv.Itoa(n.pid), "-n"} }

func (n *tortureNet) run(command string) error {
	return runAll(strings.Join(n.enter(), " ") + " " + command)
}

// lose drops the packets that match, on their way in or out of the node.
func (n *tortureNet) lose(chain, match string) error {
	return n.run("nft add rule ip torture " + chain + " " + match + " counter drop")
}

// heal ends all losses, and returns how many packets there were.
func (n *tortureNet) heal() (lost int, err error) {
	words := append(n.enter(), "nft", "list", "table", "ip", "torture")
	out, err := exec.Command(words[0], words[1:]...).Output()
	if err != nil {
		return 0, fmt.Errorf("nft list: %w", err)
	}
	for _, found := range tortureCounters.FindAllSubmatch(out, -1) {
		packets, _ := strconv.Atoi(string(found[1])) // it is digits
		lost += packets
	}
	return lost, n.run("nft flush table ip torture")
}

var tortureCounters = regexp.MustCompile(`counter packets (\d+) `)
