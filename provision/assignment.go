package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/identitystore"
	"github.com/aws/aws-sdk-go-v2/service/identitystore/document"
	storetypes "github.com/aws/aws-sdk-go-v2/service/identitystore/types"
	"github.com/aws/aws-sdk-go-v2/service/ssoadmin"
	"github.com/aws/aws-sdk-go-v2/service/ssoadmin/types"

	"sallyport.dev/flow"
)

// assignment is a permission set of IAM Identity Center in an account.
type assignment struct {
	set   flow.PermissionSet
	admin *ssoadmin.Client
	store *identitystore.Client
	pause time.Duration
}

func newAssignment(cfg aws.Config, set flow.PermissionSet, pause time.Duration) *assignment {
	return &assignment{set, ssoadmin.NewFromConfig(cfg), identitystore.NewFromConfig(cfg), pause}
}

func (a *assignment) find(ctx context.Context, name string) (string, error) {
	out, err := a.store.GetUserId(ctx, &identitystore.GetUserIdInput{
		IdentityStoreId: &a.set.IdentityStore,
		AlternateIdentifier: &storetypes.AlternateIdentifierMemberUniqueAttribute{Value: storetypes.UniqueAttribute{
			AttributePath: aws.String("userName"), AttributeValue: document.NewLazyDocument(name),
		}},
	})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.UserId), nil
}

// has looks for an assignment of the user's own; what a group gives them is not ours.
func (a *assignment) has(ctx context.Context, principal string) (bool, error) {
	pages := ssoadmin.NewListAccountAssignmentsPaginator(a.admin, &ssoadmin.ListAccountAssignmentsInput{
		InstanceArn: &a.set.InstanceARN, AccountId: &a.set.Account, PermissionSetArn: &a.set.PermissionSetARN,
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return false, err
		}
		for _, one := range page.AccountAssignments {
			if one.PrincipalType == types.PrincipalTypeUser && aws.ToString(one.PrincipalId) == principal {
				return true, nil
			}
		}
	}
	return false, nil
}

func (a *assignment) give(ctx context.Context, principal string) error {
	out, err := a.admin.CreateAccountAssignment(ctx, &ssoadmin.CreateAccountAssignmentInput{
		InstanceArn: &a.set.InstanceARN, PermissionSetArn: &a.set.PermissionSetARN,
		PrincipalId: &principal, PrincipalType: types.PrincipalTypeUser,
		TargetId: &a.set.Account, TargetType: types.TargetTypeAwsAccount,
	})
	if err != nil {
		return err
	}
	return a.await(ctx, out.AccountAssignmentCreationStatus, func(id *string) (*types.AccountAssignmentOperationStatus, error) {
		out, err := a.admin.DescribeAccountAssignmentCreationStatus(ctx, &ssoadmin.DescribeAccountAssignmentCreationStatusInput{
			InstanceArn: &a.set.InstanceARN, AccountAssignmentCreationRequestId: id,
		})
		if err != nil {
			return nil, err
		}
		return out.AccountAssignmentCreationStatus, nil
	})
}

func (a *assignment) take(ctx context.Context, principal string) error {
	out, err := a.admin.DeleteAccountAssignment(ctx, &ssoadmin.DeleteAccountAssignmentInput{
		InstanceArn: &a.set.InstanceARN, PermissionSetArn: &a.set.PermissionSetARN,
		PrincipalId: &principal, PrincipalType: types.PrincipalTypeUser,
		TargetId: &a.set.Account, TargetType: types.TargetTypeAwsAccount,
	})
	if missing := (*types.ResourceNotFoundException)(nil); errors.As(err, &missing) {
		return nil // whether it is gone is looked at afterwards
	}
	if err != nil {
		return err
	}
	return a.await(ctx, out.AccountAssignmentDeletionStatus, func(id *string) (*types.AccountAssignmentOperationStatus, error) {
		out, err := a.admin.DescribeAccountAssignmentDeletionStatus(ctx, &ssoadmin.DescribeAccountAssignmentDeletionStatusInput{
			InstanceArn: &a.set.InstanceARN, AccountAssignmentDeletionRequestId: id,
		})
		if err != nil {
			return nil, err
		}
		return out.AccountAssignmentDeletionStatus, nil
	})
}

// await looks at what AWS has begun until it is done or the context ends.
func (a *assignment) await(ctx context.Context, s *types.AccountAssignmentOperationStatus, look func(id *string) (*types.AccountAssignmentOperationStatus, error)) error {
	for {
		switch {
		case s == nil:
			return errors.New("AWS told no status")
		case s.Status == types.StatusValuesSucceeded:
			return nil
		case s.Status == types.StatusValuesFailed:
			return fmt.Errorf("AWS failed: %s", aws.ToString(s.FailureReason))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(a.pause):
		}
		next, err := look(s.RequestId)
		if err != nil {
			return err
		}
		s = next
	}
}
