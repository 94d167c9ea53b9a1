// The instructions of a mixture of experts: which of them take a token, and what these compute.

#ifndef NEXTWORD_EXPERT_OPERATIONS_H_
#define NEXTWORD_EXPERT_OPERATIONS_H_

#include <memory>

#include "step_operations.h"

namespace nextword {

// Chooses experts for each token. Registers out and of the router's logits; number of experts, and
// of those that are chosen; whether scores are sigmoids instead of a softmax, and whether those of
// the chosen are divided by their sum; number of groups of experts, of groups that may be chosen
// from, and of a group's best scores that count for it; array of what is added to scores for the
// choice alone, or -1. Factor: that of the weights. Out are the chosen experts' numbers and then
// their weights. Items are tokens.
std::unique_ptr<Operation> MakeRoute(Integers& integers, const float* factors);

// Products of tokens with the matrices of the experts that were chosen for them. Registers in and
// of the choice; number of experts, and of the chosen; the matrices' inputs, and whether each of the
// chosen has its own; and the products, with the matrices and biases of all experts one behind the
// other, whose outputs are all of one chosen expert's before the next one's. Items are tiles of
// outputs, each of an expert, or with few tokens each of one that was chosen for a token.
std::unique_ptr<Operation> MakeExpertLinear(Integers& integers, const float* factors);

// Adds up what the chosen experts say, each times its weight. Registers out, in, and of the choice;
// number of the chosen; width. Items are tokens.
std::unique_ptr<Operation> MakeMix(Integers& integers, const float* factors);

}  // namespace nextword

#endif  // NEXTWORD_EXPERT_OPERATIONS_H_
