package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/bypass/traffic"
)

// guestRDMA makes an RDMA device in software, and has it measured by its name and by that of the network device below it.
const guestRDMA = `B=/bin/busybox
soon() { i=0; while ! eval "$1"; do i=$((i+1)); [ $i -lt 1200 ]; $B sleep 0.1; done; }
$B ip link add under0 type dummy; $B ip address add 10.9.0.1/24 dev under0; $B ip link set under0 up; $B ip link set lo up
/usr/bin/rdma link add rxe0 type rxe netdev under0
soon '/init bypass rdma | $B grep -q ::ffff:10.9.0.1'
echo "ASKED list"; /init bypass rdma; echo END
echo "ASKED json"; /init bypass rdma -j; echo END
/init bypass rdma -i rxe0 --listen 127.0.0.1:7174 > /served 2>&1 &
soon '$B grep -q "answers clients" /served'
echo "ASKED trips"; /init bypass rdma -i under0 --to 127.0.0.1 --count 100 --size 3000; echo END
echo "ASKED times"; /init bypass rdma -i rxe0 --to 127.0.0.1:7174 --count 50 --wait yield -j; echo END
soon '[ $($B grep -c messages /served) = 2 ]'
kill $!; wait $! || true
echo "ASKED served"; $B cat /served; echo END
echo "ASKED nic"; /init nic under0; echo END
echo "ASKED wrong"; /init bypass rdma -i rxe1 --to 127.0.0.1 2>&1 || echo "exit code $?"; echo END
`

func checkRDMA(t *testing.T, out string) {
	t.Helper()
	for _, tt := range []struct {
		asked string
		wants []string
	}{
		{"list", []string{"rxe0, driver rxe, on under0, /dev/infiniband/uverbs0\n", "  port 1 ACTIVE, Ethernet\n", ", RoCE v2, under0\n", "::ffff:10.9.0.1"}},
		{"json", []string{`{"type":"rdma","name":"rxe0","driver":"rxe","verbs":"uverbs0",`, `"gid":"::ffff:10.9.0.1"`}},
		{"trips", []string{"100 round trips, 0 lost: min "}},
		{"served", []string{"rxe0 answers clients that ask at 127.0.0.1:7174, in packets of 1024 bytes\n", "100 messages of 3000 bytes\n", "50 messages of 64 bytes\n"}},
		{"nic", []string{"rxe0"}},
		{"wrong", []string{"there are rxe0", "exit code "}},
	} {
		answer := guestAnswer(t, out, tt.asked)
		for _, want := range tt.wants {
			if !strings.Contains(answer, want) {
				t.Errorf("%s: no %q in\n%s", tt.asked, want, answer)
			}
		}
	}
	t.Log(guestAnswer(t, out, "list"), guestAnswer(t, out, "trips"), guestAnswer(t, out, "served"))
	var s traffic.Summary
	if err := json.Unmarshal([]byte(guestAnswer(t, out, "times")), &s); err != nil || s.Count != 50 || s.Type != "times" || s.P50 <= 0 {
		t.Errorf("times: %+v, %v", s, err)
	}
}
