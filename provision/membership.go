package provision

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// membership is that of an IAM group.
type membership struct {
	group string
	iam   *iam.Client
}

func newMembership(cfg aws.Config, group string) *membership {
	return &membership{group, iam.NewFromConfig(cfg)}
}

func (m *membership) find(ctx context.Context, name string) (string, error) {
	out, err := m.iam.GetUser(ctx, &iam.GetUserInput{UserName: &name})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.User.UserName), nil
}

func (m *membership) has(ctx context.Context, principal string) (bool, error) {
	pages := iam.NewListGroupsForUserPaginator(m.iam, &iam.ListGroupsForUserInput{UserName: &principal})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if missing := (*types.NoSuchEntityException)(nil); errors.As(err, &missing) {
			return false, nil // nobody is in no group
		}
		if err != nil {
			return false, err
		}
		for _, g := range page.Groups {
			if aws.ToString(g.GroupName) == m.group {
				return true, nil
			}
		}
	}
	return false, nil
}

func (m *membership) give(ctx context.Context, principal string) error {
	_, err := m.iam.AddUserToGroup(ctx, &iam.AddUserToGroupInput{GroupName: &m.group, UserName: &principal})
	return err
}

func (m *membership) take(ctx context.Context, principal string) error {
	_, err := m.iam.RemoveUserFromGroup(ctx, &iam.RemoveUserFromGroupInput{GroupName: &m.group, UserName: &principal})
	if missing := (*types.NoSuchEntityException)(nil); errors.As(err, &missing) {
		return nil
	}
	return err
}
