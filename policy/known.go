package policy

import "strings"

// knownActions lists, per service, the operations that policies may name, in lower
// case of the service. A service that is not listed is not checked.
func knownActions() map[string][]string {
	return map[string][]string{
		"ssm":       strings.Fields(ssmActions),
		"ec2":       strings.Fields(ec2Actions),
		"iam":       strings.Fields(iamActions),
		"sts":       strings.Fields(stsActions),
		"sallyport": strings.Fields(sallyportActions),
	}
}

// From the service authorization reference: Systems Manager, all of it, as policies
// that are brought along name more than Sallyport serves.
const ssmActions = `
AddTagsToResource AssociateOpsItemRelatedItem CancelCommand CancelMaintenanceWindowExecution CreateActivation
CreateAssociation CreateAssociationBatch CreateDocument CreateMaintenanceWindow CreateOpsItem CreateOpsMetadata
CreatePatchBaseline CreateResourceDataSync DeleteActivation DeleteAssociation DeleteDocument DeleteInventory
DeleteMaintenanceWindow DeleteOpsItem DeleteOpsMetadata DeleteParameter DeleteParameters DeletePatchBaseline
DeleteResourceDataSync DeleteResourcePolicy DeregisterManagedInstance DeregisterPatchBaselineForPatchGroup
DeregisterTargetFromMaintenanceWindow DeregisterTaskFromMaintenanceWindow DescribeActivations DescribeAssociation
DescribeAssociationExecutionTargets DescribeAssociationExecutions DescribeAutomationExecutions
DescribeAutomationStepExecutions DescribeAvailablePatches DescribeDocument DescribeDocumentParameters
DescribeDocumentPermission DescribeEffectiveInstanceAssociations DescribeEffectivePatchesForPatchBaseline
DescribeInstanceAssociationsStatus DescribeInstanceInformation DescribeInstancePatchStates
DescribeInstancePatchStatesForPatchGroup DescribeInstancePatches DescribeInstanceProperties DescribeInventoryDeletions
DescribeMaintenanceWindowExecutionTaskInvocations DescribeMaintenanceWindowExecutionTasks
DescribeMaintenanceWindowExecutions DescribeMaintenanceWindowSchedule DescribeMaintenanceWindowTargets
DescribeMaintenanceWindowTasks DescribeMaintenanceWindows DescribeMaintenanceWindowsForTarget DescribeOpsItems
DescribeParameters DescribePatchBaselines DescribePatchGroupState DescribePatchGroups DescribePatchProperties
DescribeSessions DisassociateOpsItemRelatedItem ExecuteAPI GetAccessToken GetAutomationExecution GetCalendar
GetCalendarState GetCommandInvocation GetConnectionStatus GetDefaultPatchBaseline
GetDeployablePatchSnapshotForInstance GetDocument GetExecutionPreview GetInventory GetInventorySchema
GetMaintenanceWindow GetMaintenanceWindowExecution GetMaintenanceWindowExecutionTask
GetMaintenanceWindowExecutionTaskInvocation GetMaintenanceWindowTask GetManifest GetOpsItem GetOpsMetadata
GetOpsSummary GetParameter GetParameterHistory GetParameters GetParametersByPath GetPatchBaseline
GetPatchBaselineForPatchGroup GetResourcePolicies GetServiceSetting LabelParameterVersion ListAssociationVersions
ListAssociations ListCommandInvocations ListCommands ListComplianceItems ListComplianceSummaries
ListDocumentMetadataHistory ListDocumentVersions ListDocuments ListInstanceAssociations ListInventoryEntries ListNodes
ListNodesSummary ListOpsItemEvents ListOpsItemRelatedItems ListOpsMetadata ListResourceComplianceSummaries
ListResourceDataSync ListTagsForResource ModifyDocumentPermission PutCalendar PutComplianceItems
PutConfigurePackageResult PutInventory PutParameter PutResourcePolicy RegisterDefaultPatchBaseline
RegisterManagedInstance RegisterPatchBaselineForPatchGroup RegisterTargetWithMaintenanceWindow
RegisterTaskWithMaintenanceWindow RemoveTagsFromResource RequestManagedInstanceRoleToken ResetServiceSetting
ResumeSession SendAutomationSignal SendCommand StartAccessRequest StartAssociationsOnce StartAutomationExecution
StartChangeRequestExecution StartExecutionPreview StartSession StopAutomationExecution TerminateSession
UnlabelParameterVersion UpdateAssociation UpdateAssociationStatus UpdateDocument UpdateDocumentDefaultVersion
UpdateDocumentMetadata UpdateInstanceAssociationStatus UpdateInstanceInformation UpdateMaintenanceWindow
UpdateMaintenanceWindowTarget UpdateMaintenanceWindowTask UpdateManagedInstancePublicKey UpdateManagedInstanceRole
UpdateOpsItem UpdateOpsMetadata UpdatePatchBaseline UpdateResourceDataSync UpdateServiceSetting`

// What policies for access to nodes name of EC2.
const ec2Actions = `
AssociateIamInstanceProfile CreateTags DeleteTags DescribeAddresses DescribeAvailabilityZones
DescribeIamInstanceProfileAssociations DescribeImages DescribeInstanceAttribute DescribeInstanceStatus
DescribeInstanceTypes DescribeInstances DescribeKeyPairs DescribeNetworkInterfaces DescribeRegions DescribeRouteTables
DescribeSecurityGroupRules DescribeSecurityGroups DescribeSnapshots DescribeSubnets DescribeTags DescribeVolumes
DescribeVpcEndpoints DescribeVpcs GetConsoleOutput GetConsoleScreenshot GetPasswordData ModifyInstanceAttribute
RebootInstances RunInstances SendDiagnosticInterrupt StartInstances StopInstances TerminateInstances`

const iamActions = `
AddRoleToInstanceProfile AddUserToGroup AttachGroupPolicy AttachRolePolicy AttachUserPolicy ChangePassword
CreateAccessKey CreateAccountAlias CreateGroup CreateInstanceProfile CreateLoginProfile CreateOpenIDConnectProvider
CreatePolicy CreatePolicyVersion CreateRole CreateSAMLProvider CreateServiceLinkedRole CreateUser
CreateVirtualMFADevice DeactivateMFADevice DeleteAccessKey DeleteAccountAlias DeleteGroup DeleteGroupPolicy
DeleteInstanceProfile DeleteLoginProfile DeletePolicy DeletePolicyVersion DeleteRole DeleteRolePermissionsBoundary
DeleteRolePolicy DeleteSSHPublicKey DeleteUser DeleteUserPermissionsBoundary DeleteUserPolicy DeleteVirtualMFADevice
DetachGroupPolicy DetachRolePolicy DetachUserPolicy EnableMFADevice GetAccessKeyLastUsed GetAccountAuthorizationDetails
GetAccountPasswordPolicy GetAccountSummary GetContextKeysForCustomPolicy GetContextKeysForPrincipalPolicy GetGroup
GetGroupPolicy GetInstanceProfile GetLoginProfile GetMFADevice GetPolicy GetPolicyVersion GetRole GetRolePolicy
GetSSHPublicKey GetUser GetUserPolicy ListAccessKeys ListAccountAliases ListAttachedGroupPolicies
ListAttachedRolePolicies ListAttachedUserPolicies ListEntitiesForPolicy ListGroupPolicies ListGroups ListGroupsForUser
ListInstanceProfiles ListInstanceProfilesForRole ListMFADeviceTags ListMFADevices ListPolicies ListPolicyTags
ListPolicyVersions ListRolePolicies ListRoleTags ListRoles ListSSHPublicKeys ListUserPolicies ListUserTags ListUsers
ListVirtualMFADevices PassRole PutGroupPolicy PutRolePermissionsBoundary PutRolePolicy PutUserPermissionsBoundary
PutUserPolicy RemoveRoleFromInstanceProfile RemoveUserFromGroup ResyncMFADevice SetDefaultPolicyVersion
SimulateCustomPolicy SimulatePrincipalPolicy TagMFADevice TagPolicy TagRole TagUser UntagMFADevice UntagPolicy
UntagRole UntagUser UpdateAccessKey UpdateAssumeRolePolicy UpdateGroup UpdateLoginProfile UpdateRole
UpdateRoleDescription UpdateSSHPublicKey UpdateUser UploadSSHPublicKey`

const stsActions = `
AssumeRole AssumeRoleWithSAML AssumeRoleWithWebIdentity AssumeRoot DecodeAuthorizationMessage GetAccessKeyInfo
GetCallerIdentity GetFederationToken GetServiceBearerToken GetSessionToken SetContext SetSourceIdentity TagGetFederationToken TagSession`

// Sallyport's own operations.
const sallyportActions = `
ActivateRequest AddFactor ApplyConfiguration ApproveRequest CancelRequest ChangePassword CreateSSOToken
DelegateRequest DeleteRecording DeleteSSHAuthority DenyRequest DisableUser EnableFactor EnableUser
EndSignIn EndSignIns ExplainAccess ExportRequest ExtendRequest ForwardAgent GetAccessRequest GetChatCode
GetCommand GetFlows GetRecording GetRecordingInfo GetSSHAuthorities GetSession GetStatus HoldRecording
IssueSSHCertificate LinkAccount LinkChat ListAccessRequests ListAccounts ListAssumableRoles ListChatLinks
ListFactors ListFlows ListGroupSSHKeys ListNodes ListRecordingHolds ListRecordings ListSessions
ListSignIns PlanConfiguration PutFlows QueryAudit ReleaseRecordingHold ReleaseRequest RemoveFactor
RemovePassword ReportAuthorizedKeys RequestAccess ResetPassword ReviewAccess ReviewRequest RevokeRequest
RewrapRecordings RotateSSHAuthority RunAs SearchSessions SimulateAccess StepUp UnlinkAccount UnlinkChat
VerifyAudit VerifyRecording WatchSession`

// KnownAction reports whether an action (ssm:StartSession, in any case) is one that
// policies may name, and if not, which one was probably meant; meant is empty if none
// is near. Actions of services that are not listed count as known.
func KnownAction(action string) (known bool, meant string) {
	service, name, _ := strings.Cut(action, ":")
	service = lower(service)
	names, listed := knownActions()[service]
	if !listed {
		return true, ""
	}
	for _, n := range names {
		if lower(n) == lower(name) {
			return true, ""
		}
	}
	if n := nearest(name, names); n != "" {
		meant = service + ":" + n
	}
	return false, meant
}

// isKnownKey reports whether a condition key, in lower case, is one that requests
// can have. Keys of services that are not listed count as known.
func isKnownKey(key string) bool {
	service, name, _ := strings.Cut(key, ":")
	name, _, tagged := strings.Cut(name, "/")
	names, listed := knownKeys()[service]
	if !listed {
		return true
	}
	if tagged {
		name += "/"
	}
	for _, n := range strings.Fields(names) {
		if lower(n) == name {
			return true
		}
	}
	return false
}

// nearestKey returns the known key that a misspelt one was probably meant to be.
func nearestKey(key string) string {
	service, name, _ := strings.Cut(lower(key), ":")
	if s := nearest(name, strings.Fields(knownKeys()[service])); s != "" {
		return service + ":" + s
	}
	return ""
}

// knownKeys lists condition keys per service; a slash at the end means that a tag's
// key follows.
func knownKeys() map[string]string {
	return map[string]string{
		"aws": `CalledVia CalledViaFirst CalledViaLast ChatbotSourceArn CurrentTime EpochTime FederatedProvider
			MultiFactorAuthAge MultiFactorAuthPresent PrincipalAccount PrincipalArn PrincipalIsAWSService PrincipalOrgID
			PrincipalOrgPaths PrincipalServiceName PrincipalServiceNamesList PrincipalTag/ PrincipalType Referer
			RequestTag/ RequestedRegion ResourceAccount ResourceOrgID ResourceOrgPaths ResourceTag/ SecureTransport
			SourceAccount SourceArn SourceIdentity SourceIp SourceOrgID SourceOrgPaths SourceVpc SourceVpce TagKeys
			TokenIssueTime UserAgent userid username ViaAWSService VpcSourceIp Ec2InstanceSourceVpc
			Ec2InstanceSourcePrivateIPv4 AssumedRoot`,
		"ssm": `AutoApprove DocumentCategories DocumentType Overwrite Policies Recursive SessionDocumentAccessCheck
			SourceInstanceARN SyncType resourceTag/`,
		"ec2": `AvailabilityZone InstanceID InstanceProfile InstanceType Owner PlacementGroup Region ResourceTag/
			RootDeviceType SourceInstanceARN Tenancy CreateAction Attribute Attribute/ Vpc Subnet`,
		"iam": `AssociatedResourceArn AWSServiceName FIDO-certification OrganizationsPolicyId PassedToService
			PermissionsBoundary PolicyARN RegisterSecurityKey ResourceTag/`,
		"sallyport": `DocumentName NodeId NodeName OwnerTag/ RecordingAge RemoteAddress RemoteHost RemotePort RemoteSocket
			RunAsUser SessionOwner`,
		"sts": `AWSServiceName DurationSeconds ExternalId RequestContext/ RoleSessionName SourceIdentity TaskPolicyArn
			TransitiveTagKeys`,
	}
}
