#include "expert_operations.h"

#include <cmath>
#include <numeric>

#include "step_matrix.h"

namespace nextword {
namespace {

// Returns the places of the largest values, from the largest on; of equal ones the first.
std::vector<int64_t> Largest(const std::vector<float>& values, int64_t count) {
  std::vector<int64_t> places(values.size());
  std::iota(places.begin(), places.end(), 0);
  std::partial_sort(places.begin(), places.begin() + count, places.end(),
                    [&](int64_t one, int64_t other) {
                      return values[one] != values[other] ? values[one] > values[other]
                                                          : one < other;
                    });
  places.resize(count);
  return places;
}

class Route : public Operation {
 public:
  Route(Integers& in, const float* factors)
      : out_(in.Next()), logits_(in.Next()), experts_(in.Next()), chosen_(in.Next()),
        is_sigmoid_(in.Next()), is_normalized_(in.Next()), groups_(in.Next()),
        chosen_groups_(in.Next()), counted_(in.Next()), bias_at_(in.Next()), scale_(factors[0]) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    if (experts_ < 1 || groups_ < 1 || experts_ % groups_ || chosen_groups_ < 1 ||
        chosen_groups_ > groups_ || counted_ < 1 || counted_ > experts_ / groups_ || chosen_ < 1 ||
        chosen_ > experts_ / groups_ * chosen_groups_ || !memory.IsRegister(out_, 2 * chosen_) ||
        !memory.IsRegister(logits_, experts_) ||
        (bias_at_ != -1 && !memory.IsFloats(bias_at_, experts_))) {
      return false;
    }
    bias_ = memory.Floats(bias_at_);
    return true;
  }
  int64_t count() const override { return memory_->tokens; }
  int64_t cost() const override { return 16 * experts_; }
  void Run(int64_t first, int64_t last) const override {
    for (int64_t token = first; token < last; ++token) RunToken(token);
  }

 private:
  void RunToken(int64_t token) const {
    const std::vector<float> scores = Scores(memory_->row(logits_, token));
    std::vector<float> preferences = scores;
    for (int64_t e = 0; bias_ != nullptr && e < experts_; ++e) preferences[e] += bias_[e];
    if (groups_ > 1) KeepBestGroups(&preferences);
    float* numbers = memory_->row(out_, token);
    float* weights = numbers + chosen_;
    float total = 0;
    const std::vector<int64_t> best = Largest(preferences, chosen_);
    for (int64_t j = 0; j < chosen_; ++j) {
      numbers[j] = static_cast<float>(best[j]);
      weights[j] = scores[best[j]];
      total += weights[j];
    }
    const float divisor = is_normalized_ ? total + 1e-20f : 1;
    for (int64_t j = 0; j < chosen_; ++j) weights[j] = weights[j] / divisor * scale_;
  }

  std::vector<float> Scores(const float* logits) const {
    std::vector<float> scores(logits, logits + experts_);
    if (is_sigmoid_) {
      for (float& score : scores) score = 1 / (1 + std::exp(-score));
      return scores;
    }
    const float largest = *std::max_element(scores.begin(), scores.end());
    for (float& score : scores) score = std::exp(score - largest);
    const float total = std::accumulate(scores.begin(), scores.end(), 0.0f);
    for (float& score : scores) score /= total;
    return scores;
  }

  void KeepBestGroups(std::vector<float>* preferences) const {
    const int64_t size = experts_ / groups_;
    std::vector<float> sums(groups_);
    for (int64_t group = 0; group < groups_; ++group) {
      const auto begin = preferences->begin() + group * size;
      std::vector<float> own(begin, begin + size);
      for (const int64_t place : Largest(own, counted_)) sums[group] += own[place];
    }
    std::vector<float> kept(experts_, -1e30f);
    for (const int64_t group : Largest(sums, chosen_groups_)) {
      const auto begin = preferences->begin() + group * size;
      std::copy(begin, begin + size, kept.begin() + group * size);
    }
    *preferences = kept;
  }

  const int64_t out_, logits_, experts_, chosen_, is_sigmoid_, is_normalized_, groups_;
  const int64_t chosen_groups_, counted_, bias_at_;
  const float scale_;
  Memory* memory_ = nullptr;
  const float* bias_ = nullptr;
};

class ExpertLinear : public Operation {
 public:
  ExpertLinear(Integers& in, const float*)
      : in_(in.Next()), choice_(in.Next()), experts_(in.Next()), chosen_(in.Next()),
        inputs_(in.Next()), is_own_(in.Next()) {
    while (!in.is_at_end() && !in.is_short()) products_.emplace_back(in);
  }

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    if (experts_ < 1 || chosen_ < 1 || inputs_ < 1 || !memory.IsRegister(choice_, 2 * chosen_) ||
        !memory.IsRegister(in_, is_own_ ? chosen_ * inputs_ : inputs_)) {
      return false;
    }
    for (Product& product : products_) {
      const int64_t of_all = experts_ * product.outputs;
      if (product.outputs < 1 || !memory.IsRegister(product.out, chosen_ * product.outputs) ||
          !product.matrix.Prepare(memory, of_all, inputs_) ||
          (product.matrix.is_packed() && product.outputs % kTile) ||
          (product.bias_at != -1 && !memory.IsFloats(product.bias_at, of_all))) {
        return false;
      }
      product.bias = memory.Floats(product.bias_at);
      product.first_tile = tiles_;
      tiles_ += product.tiles();
      has_packed_ = has_packed_ || product.matrix.is_packed();
    }
    return true;
  }
  int64_t count() const override { return (is_grouped() ? experts_ : pairs()) * tiles_; }
  int64_t cost() const override {
    return kTile * inputs_ * (is_grouped() ? (pairs() + experts_ - 1) / experts_ : 1);
  }
  void Run(int64_t first, int64_t last) const override {
    thread_local std::vector<int64_t> own;
    while (first < last) {
      // The tiles of one expert, for all tokens that chose it or for one.
      const int64_t number = first / tiles_, start = number * tiles_;
      const int64_t end = std::min(last, start + tiles_);
      own.clear();
      if (is_grouped()) {
        for (int64_t pair = 0; pair < pairs(); ++pair) {
          if (ExpertOf(pair) == number) own.push_back(pair);
        }
      } else {
        own.push_back(number);
      }
      const auto count = static_cast<int64_t>(own.size());
      for (int64_t i = 0; i < count; i += kBlockRows) {
        RunRows(&own[i], std::min(count - i, kBlockRows), first - start, end - start);
      }
      first = end;
    }
  }

 private:
  // Tokens and the experts that were chosen for them.
  int64_t pairs() const { return memory_->tokens * chosen_; }
  int64_t ExpertOf(int64_t pair) const {
    return static_cast<int64_t>(memory_->row(choice_, pair / chosen_)[pair % chosen_]);
  }
  // Whether an expert takes all its tokens together, so that its weights are read once.
  bool is_grouped() const { return pairs() >= experts_; }

  // Multiplies some tokens' activations with tiles of the expert that was chosen for all of them.
  void RunRows(const int64_t* pairs, int64_t rows, int64_t first_tile, int64_t last_tile) const {
    thread_local AlignedFloats gathered, results;
    float* in = gathered.Get(rows * inputs_);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t token = pairs[row] / chosen_, slot = pairs[row] % chosen_;
      const float* own = memory_->row(in_, token) + (is_own_ ? slot * inputs_ : 0);
      std::copy(own, own + inputs_, in + row * inputs_);
    }
    // Every thread for itself: it takes a few hundredths of the time of the products.
    const QuantizedRows* quantized = has_packed_ ? Quantized(in, rows) : nullptr;
    for (const Product& product : products_) {
      const auto [first, last] = product.OutputsIn(first_tile, last_tile);
      if (first >= last) continue;
      const int64_t start = ExpertOf(pairs[0]) * product.outputs;
      float* out = results.Get(rows * product.outputs);
      product.matrix.From(start).Multiply(in, quantized, rows, first, last, out, product.outputs);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t token = pairs[row] / chosen_, slot = pairs[row] % chosen_;
        const float* own = out + row * product.outputs;
        float* result = memory_->row(product.out, token) + slot * product.outputs;
        for (int64_t o = first; o < last; ++o) {
          result[o] = product.bias == nullptr ? own[o] : own[o] + product.bias[start + o];
        }
      }
    }
  }

  QuantizedRows* Quantized(const float* in, int64_t rows) const {
    thread_local std::map<std::pair<int64_t, int64_t>, std::unique_ptr<QuantizedRows>> kept;
    auto& quantized = kept[{rows, inputs_}];
    if (quantized == nullptr) quantized = std::make_unique<QuantizedRows>(rows, inputs_);
    for (int64_t row = 0; row < rows; ++row) quantized->Quantize(row, in + row * inputs_);
    return quantized.get();
  }

  const int64_t in_, choice_, experts_, chosen_, inputs_, is_own_;
  std::vector<Product> products_;
  int64_t tiles_ = 0;
  bool has_packed_ = false;
  Memory* memory_ = nullptr;
};

class Mix : public Operation {
 public:
  Mix(Integers& in, const float*)
      : out_(in.Next()), in_(in.Next()), choice_(in.Next()), chosen_(in.Next()),
        width_(in.Next()) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    return chosen_ > 0 && width_ > 0 && memory.IsRegister(out_, width_) &&
           memory.IsRegister(in_, chosen_ * width_) && memory.IsRegister(choice_, 2 * chosen_);
  }
  int64_t count() const override { return memory_->tokens; }
  int64_t cost() const override { return chosen_ * width_ / 4; }
  void Run(int64_t first, int64_t last) const override {
    for (int64_t token = first; token < last; ++token) {
      const float* weights = memory_->row(choice_, token) + chosen_;
      const float* in = memory_->row(in_, token);
      float* out = memory_->row(out_, token);
      for (int64_t i = 0; i < width_; ++i) out[i] = weights[0] * in[i];
      for (int64_t j = 1; j < chosen_; ++j) {
        in += width_;
        for (int64_t i = 0; i < width_; ++i) out[i] += weights[j] * in[i];
      }
    }
  }

 private:
  const int64_t out_, in_, choice_, chosen_, width_;
  Memory* memory_ = nullptr;
};

}  // namespace

std::unique_ptr<Operation> MakeRoute(Integers& integers, const float* factors) {
  return std::make_unique<Route>(integers, factors);
}

std::unique_ptr<Operation> MakeExpertLinear(Integers& integers, const float* factors) {
  return std::make_unique<ExpertLinear>(integers, factors);
}

std::unique_ptr<Operation> MakeMix(Integers& integers, const float* factors) {
  return std::make_unique<Mix>(integers, factors);
}

}  // namespace nextword
