package link

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func errorMessage(seq uint32, errno unix.Errno, detail string) []byte {
	m := make([]byte, unix.NLMSG_HDRLEN+4+unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint16(m[4:], unix.NLMSG_ERROR)
	binary.NativeEndian.PutUint32(m[8:], seq)
	binary.NativeEndian.PutUint32(m[unix.NLMSG_HDRLEN:], uint32(-int32(errno)))
	if detail != "" {
		binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_ACK_TLVS)
		m = binary.NativeEndian.AppendUint16(m, uint16(unix.SizeofRtAttr+len(detail)+1))
		m = binary.NativeEndian.AppendUint16(m, unix.NLMSGERR_ATTR_MSG)
		m = append(append(m, detail...), 0)
	}
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	return append(m, make([]byte, align(len(m))-len(m))...)
}

func TestParseAnswers(t *testing.T) {
	got, err := parseAnswers(append(errorMessage(4, unix.EPERM, "not you"), errorMessage(9, 0, "")...))
	require.NoError(t, err)
	require.Equal(t, []answer{{4, unix.EPERM, "not you"}, {9, 0, ""}}, got)

	short := errorMessage(4, unix.EPERM, "")
	binary.NativeEndian.PutUint32(short, 20)
	_, err = parseAnswers(short)
	require.ErrorIs(t, err, errMalformed)
	binary.NativeEndian.PutUint32(short, 4000)
	_, err = parseAnswers(short)
	require.ErrorIs(t, err, errMalformed)
}

func FuzzParseAnswers(f *testing.F) {
	f.Add(errorMessage(4, unix.EPERM, "not you"))
	f.Add(errorMessage(1, 0, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		answers, err := parseAnswers(b)
		if err != nil {
			require.ErrorIs(t, err, errMalformed)
		}
		require.LessOrEqual(t, len(answers), len(b)/unix.NLMSG_HDRLEN)
	})
}
