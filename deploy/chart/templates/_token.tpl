{{/*
A token of Keyrack, as `keyrack token new` makes one: krk_, 41 random characters, and six that are
the CRC32 of those in base62. Helm knows no CRC32 and no exclusive or, so both are tables here: a
number of four bits is a letter from A to P, the CRC eight of them, the lowest first.
*/}}
{{- define "keyrack.newToken" -}}
{{- $body := randAlphaNum 41 -}}
krk_{{ $body }}{{ include "keyrack.tokenCheck" $body }}
{{- end }}

{{- define "keyrack.tokenCheck" -}}
{{- $body := . -}}
{{- $rows := list
  "AAAAAAAA"
  "EGABHLNB"
  "IMACOGLD"
  "MKADJNGC"
  "AJBEMNGH"
  "EPBFLGLG"
  "IFBGCLNE"
  "MDBHFAAF"
  "ACDIILNO"
  "EEDJPAAP"
  "IODKGNGN"
  "MIDLBGLM"
  "ALCMEGLJ"
  "ENCNDNGI"
  "IHCOKAAK"
  "MBCPNLNL" -}}

{{- $xor := "ABCDEFGHIJKLMNOPBADCFEHGJILKNMPOCDABGHEFKLIJOPMNDCBAHGFELKJIPONMEFGHABCDMNOPIJKLFEHGBADCNMPOJILKGHEFCDABOPMNKLIJHGFEDCBAPONMLKJIIJKLMNOPABCDEFGHJILKNMPOBADCFEHGKLIJOPMNCDABGHEFLKJIPONMDCBAHGFEMNOPIJKLEFGHABCDNMPOJILKFEHGBADCOPMNKLIJGHEFCDABPONMLKJIHGFEDCBA" -}}
{{- $crc := list 15 15 15 15 15 15 15 15 -}}
{{- range $at := until (len $body) -}}
{{- $byte := index $body $at | int -}}
{{- range $part := list (mod $byte 16) (div $byte 16) -}}
{{- $row := index $rows (sub (index $xor (add (mul 16 (index $crc 0)) $part | int) | int) 65 | int) -}}
{{- $shifted := append (rest $crc) 0 -}}
{{- $next := list -}}
{{- range $place := until 8 -}}
{{- $left := index $shifted $place -}}
{{- $right := sub (index $row $place | int) 65 -}}
{{- $next = append $next (sub (index $xor (add (mul 16 $left) $right | int) | int) 65) -}}
{{- end -}}
{{- $crc = $next -}}
{{- end -}}
{{- end -}}
{{- $number := 0 -}}
{{- range $part := reverse $crc -}}
{{- $number = add (mul 16 $number) (sub 15 $part) -}}
{{- end -}}
{{- $alphabet := "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" -}}
{{- $digits := "" -}}
{{- range until 6 -}}
{{- $digit := mod $number 62 | int -}}
{{- $digits = print (substr $digit (add1 $digit | int) $alphabet) $digits -}}
{{- $number = div $number 62 -}}
{{- end -}}
{{ $digits }}
{{- end }}
