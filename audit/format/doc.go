// Package format writes audit records as others read them: as they are (json), as events
// of the Open Cybersecurity Schema Framework (ocsf, version OCSFVersion,
// https://schema.ocsf.io), or by the Elastic Common Schema (ecs, version ECSVersion,
// https://www.elastic.co/docs/reference/ecs).
//
// No field says what the record does not, and nothing of the record is left out: what
// has no place in a schema goes under unmapped (OCSF) or sallyport (ECS).
package format
