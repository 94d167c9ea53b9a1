#include "step_operations.h"

#include "expert_operations.h"
#include "step_matrix.h"

namespace nextword {
namespace {

// Elements of a block of elementwise work.
constexpr int64_t kBlock = 512;

// Registers out and in; heads, each of a width, and whether the mean is taken away; arrays of the
// scale and the bias or -1, of all heads' widths or of one. Factors: epsilon, and what is added to
// the scale. Items are tokens.
class Norm : public Operation {
 public:
  Norm(Integers& in, const float* factors)
      : out_(in.Next()), in_(in.Next()), heads_(in.Next()), width_(in.Next()),
        is_centered_(in.Next()), scale_at_(in.Next()), bias_at_(in.Next()), epsilon_(factors[0]),
        offset_(factors[1]) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    if (heads_ < 1 || width_ < 1 || !memory.IsRegister(out_, heads_ * width_) ||
        !memory.IsRegister(in_, heads_ * width_)) {
      return false;
    }
    is_each_ = !memory.IsFloats(scale_at_, width_);
    const int64_t elements = is_each_ ? heads_ * width_ : width_;
    if (!memory.IsFloats(scale_at_, elements)) return false;
    if (bias_at_ != -1 && !memory.IsFloats(bias_at_, elements)) return false;
    scale_ = memory.Floats(scale_at_);
    bias_ = memory.Floats(bias_at_);
    return true;
  }
  int64_t count() const override { return memory_->tokens; }
  int64_t cost() const override { return heads_ * width_ / 2; }
  void Run(int64_t first, int64_t last) const override {
    const NormKernel normalize = CurrentKernels().normalize;
    for (int64_t token = first; token < last; ++token) {
      for (int64_t head = 0; head < heads_; ++head) {
        const int64_t start = head * width_, own = is_each_ ? start : 0;
        normalize(memory_->row(in_, token) + start, width_, is_centered_, epsilon_, scale_ + own,
                  offset_, bias_ == nullptr ? nullptr : bias_ + own,
                  memory_->row(out_, token) + start);
      }
    }
  }

 private:
  const int64_t out_, in_, heads_, width_;
  const bool is_centered_;
  const int64_t scale_at_, bias_at_;
  const float epsilon_, offset_;
  Memory* memory_ = nullptr;
  bool is_each_ = false;
  const float* scale_ = nullptr;
  const float* bias_ = nullptr;
};

// Quantises a register for the packed matrices behind. Register; its width. Items are tokens.
class Quantize : public Operation {
 public:
  Quantize(Integers& in, const float*) : in_(in.Next()), width_(in.Next()) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    if (width_ < 1 || width_ % kGroup || !memory.IsRegister(in_, width_)) return false;
    quantized_ = memory.quantized(width_);
    return true;
  }
  int64_t count() const override { return memory_->tokens; }
  int64_t cost() const override { return width_; }
  void Run(int64_t first, int64_t last) const override {
    for (int64_t token = first; token < last; ++token) {
      quantized_->Quantize(token, memory_->row(in_, token));
    }
  }

 private:
  const int64_t in_, width_;
  Memory* memory_ = nullptr;
  QuantizedRows* quantized_ = nullptr;
};

// Products of one register with several matrices. Register; its width; and the products. Items are
// tiles of outputs.
class Linear : public Operation {
 public:
  Linear(Integers& in, const float*) : in_(in.Next()), inputs_(in.Next()) {
    while (!in.is_at_end() && !in.is_short()) products_.emplace_back(in);
  }

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    if (inputs_ < 1 || !memory.IsRegister(in_, inputs_)) return false;
    for (Product& product : products_) {
      if (product.outputs < 1 || !memory.IsRegister(product.out, product.outputs) ||
          !product.matrix.Prepare(memory, product.outputs, inputs_) ||
          (product.bias_at != -1 && !memory.IsFloats(product.bias_at, product.outputs))) {
        return false;
      }
      product.bias = memory.Floats(product.bias_at);
      product.first_tile = tiles_;
      tiles_ += product.tiles();
      if (product.matrix.is_packed()) quantized_ = memory.quantized(inputs_);
    }
    return true;
  }
  int64_t count() const override { return tiles_; }
  int64_t cost() const override { return kTile * inputs_ * memory_->tokens; }
  void Run(int64_t first_tile, int64_t last_tile) const override {
    const int64_t tokens = memory_->tokens;
    const float* in = memory_->row(in_, 0);
    for (const Product& product : products_) {
      const auto [first, last] = product.OutputsIn(first_tile, last_tile);
      if (first >= last) continue;
      float* out = memory_->row(product.out, 0);
      product.matrix.Multiply(in, quantized_, tokens, first, last, out, product.outputs);
      for (int64_t token = 0; product.bias != nullptr && token < tokens; ++token) {
        float* row = out + token * product.outputs;
        for (int64_t o = first; o < last; ++o) row[o] += product.bias[o];
      }
    }
  }

 private:
  const int64_t in_, inputs_;
  std::vector<Product> products_;
  int64_t tiles_ = 0;
  Memory* memory_ = nullptr;
  QuantizedRows* quantized_ = nullptr;
};

// Rotates heads in place. Register; heads, each of a width; rotated pairs; array [tokens, 2 * pairs]
// of their cosines and sines. Items are tokens.
class Rotate : public Operation {
 public:
  Rotate(Integers& in, const float*)
      : heads_at_(in.Next()), heads_(in.Next()), width_(in.Next()), pairs_(in.Next()),
        table_at_(in.Next()) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    if (pairs_ < 1 || 2 * pairs_ > width_ || !memory.IsRegister(heads_at_, heads_ * width_) ||
        !memory.IsArray(table_at_, memory.tokens * 2 * pairs_, Array::kFloat32)) {
      return false;
    }
    table_ = memory.Floats(table_at_);
    return true;
  }
  int64_t count() const override { return memory_->tokens; }
  int64_t cost() const override { return heads_ * width_ / 2; }
  void Run(int64_t first, int64_t last) const override {
    for (int64_t token = first; token < last; ++token) {
      const float* cosines = table_ + token * 2 * pairs_;
      const float* sines = cosines + pairs_;
      for (int64_t head = 0; head < heads_; ++head) {
        float* one = memory_->row(heads_at_, token) + head * width_;
        float* other = one + pairs_;
        for (int64_t i = 0; i < pairs_; ++i) {
          const float x = one[i], y = other[i];
          one[i] = x * cosines[i] - y * sines[i];
          other[i] = y * cosines[i] + x * sines[i];
        }
      }
    }
  }

 private:
  const int64_t heads_at_, heads_, width_, pairs_, table_at_;
  Memory* memory_ = nullptr;
  const float* table_ = nullptr;
};

// Writes heads into a cache [rows, heads, capacity, width]. Register; heads, each of a width; array.
// Items are tokens.
class Store : public Operation {
 public:
  Store(Integers& in, const float*)
      : in_(in.Next()), heads_(in.Next()), width_(in.Next()), cache_(in.Next()) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    return memory.IsRegister(in_, heads_ * width_) && memory.IsCache(cache_, heads_, width_);
  }
  int64_t count() const override { return memory_->tokens; }
  int64_t cost() const override { return heads_ * width_ / 4; }
  void Run(int64_t first, int64_t last) const override {
    const Step& step = memory_->step;
    const Array& cache = memory_->operand(cache_);
    for (int64_t token = first; token < last; ++token) {
      const int64_t row = token / step.length();
      const int64_t position = step.position(row) + token % step.length();
      for (int64_t head = 0; head < heads_; ++head) {
        const float* values = memory_->row(in_, token) + head * width_;
        const int64_t at = ((row * heads_ + head) * step.capacity() + position) * width_;
        if (cache.type == Array::kFloat32) {
          std::memcpy(static_cast<float*>(cache.data) + at, values, width_ * sizeof(float));
        } else {
          for (int64_t i = 0; i < width_; ++i) {
            static_cast<uint16_t*>(cache.data)[at + i] = Rounded(values[i]);
          }
        }
      }
    }
  }

 private:
  // To the nearest bfloat16, to the even one of two.
  static uint16_t Rounded(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }

  const int64_t in_, heads_, width_, cache_;
  Memory* memory_ = nullptr;
};

// Attends from each token's queries to the keys up to its own. Registers out and query; heads, and
// how many there are of keys and values; widths of a key and of a value; arrays of cached keys and
// values, of ALiBi's slopes or -1, of sinks or -1; the window or 0. Factors: the scale, and the soft
// cap or 0. Items are all query heads of a token that share keys, or where these would leave threads
// without work, each.
class Attend : public Operation {
 public:
  Attend(Integers& in, const float* factors)
      : out_(in.Next()), query_(in.Next()), heads_(in.Next()), shared_(in.Next()),
        key_width_(in.Next()), value_width_(in.Next()), keys_(in.Next()), values_(in.Next()),
        slopes_at_(in.Next()), sinks_at_(in.Next()), window_(in.Next()), scale_(factors[0]),
        soft_cap_(factors[1]) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    if (shared_ < 1 || heads_ < 1 || heads_ % shared_ ||
        !memory.IsRegister(out_, heads_ * value_width_) ||
        !memory.IsRegister(query_, heads_ * key_width_) ||
        !memory.IsCache(keys_, shared_, key_width_) ||
        !memory.IsCache(values_, shared_, value_width_) ||
        memory.operand(keys_).type != memory.operand(values_).type ||
        (slopes_at_ != -1 && !memory.IsFloats(slopes_at_, heads_)) ||
        (sinks_at_ != -1 && !memory.IsFloats(sinks_at_, heads_))) {
      return false;
    }
    slopes_ = memory.Floats(slopes_at_);
    sinks_ = memory.Floats(sinks_at_);
    const Step& step = memory.step;
    for (int64_t row = 0; row < step.rows(); ++row) {
      longest_ = std::max(longest_, step.position(row) + step.length());
    }
    // Together they read the keys once; but threads should work for three quarters of the time.
    const int64_t items = memory.tokens * shared_, threads = memory.num_threads;
    const int64_t turns = (items + threads - 1) / threads;
    queries_ = 3 * turns * threads <= 4 * items ? heads_ / shared_ : 1;
    return true;
  }
  int64_t count() const override { return memory_->tokens * heads_ / queries_; }
  int64_t cost() const override { return queries_ * longest_ * (key_width_ + value_width_); }
  void Run(int64_t first, int64_t last) const override {
    const Step& step = memory_->step;
    const Array& keys = memory_->operand(keys_);
    const Array& values = memory_->operand(values_);
    const bool is_float32 = keys.type == Array::kFloat32;
    const AttentionKernel kernel =
        is_float32 ? CurrentKernels().attend_float32 : CurrentKernels().attend_bfloat16;
    const int64_t bytes = is_float32 ? 4 : 2;
    thread_local std::vector<float> scores;
    if (static_cast<int64_t>(scores.size()) < queries_ * longest_) {
      scores.resize(queries_ * step.capacity());
    }
    for (int64_t item = first; item < last; ++item) {
      const int64_t token = item * queries_ / heads_, head = item * queries_ % heads_;
      const int64_t row = token / step.length();
      const int64_t end = step.position(row) + token % step.length() + 1;
      const int64_t at = (row * shared_ + head * shared_ / heads_) * step.capacity() * bytes;
      kernel({memory_->row(query_, token) + head * key_width_,
              static_cast<const char*>(keys.data) + at * key_width_,
              static_cast<const char*>(values.data) + at * value_width_,
              queries_,
              key_width_,
              value_width_,
              window_ > 0 ? std::max<int64_t>(end - window_, 0) : 0,
              end,
              scale_,
              soft_cap_,
              slopes_ == nullptr ? nullptr : slopes_ + head,
              sinks_ == nullptr ? nullptr : sinks_ + head,
              scores.data(),
              memory_->row(out_, token) + head * value_width_});
    }
  }

 private:
  const int64_t out_, query_, heads_, shared_, key_width_, value_width_, keys_, values_;
  const int64_t slopes_at_, sinks_at_, window_;
  const float scale_, soft_cap_;
  Memory* memory_ = nullptr;
  const float* slopes_ = nullptr;
  const float* sinks_ = nullptr;
  int64_t longest_ = 0;
  int64_t queries_ = 1;
};

// Registers out, gate, and what is gated or -1; their width; the kind of activation. Factor: the
// limit or 0. Items are blocks of tokens.
class Activate : public Operation {
 public:
  Activate(Integers& in, const float* factors)
      : out_(in.Next()), gate_(in.Next()), up_(in.Next()), width_(in.Next()), kind_(in.Next()),
        limit_(factors[0]) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    return width_ > 0 && memory.IsRegister(out_, width_) && memory.IsRegister(gate_, width_) &&
           (up_ == -1 || memory.IsRegister(up_, width_)) && kind_ >= kSilu && kind_ <= kReluSquared;
  }
  int64_t count() const override { return memory_->tokens * blocks(); }
  int64_t cost() const override { return 8 * std::min(width_, kBlock); }
  void Run(int64_t first, int64_t last) const override {
    const ActivationKernel activate = CurrentKernels().activate;
    for (int64_t item = first; item < last; ++item) {
      const int64_t token = item / blocks(), start = item % blocks() * kBlock;
      activate(static_cast<ActivationKind>(kind_), memory_->row(gate_, token) + start,
               up_ == -1 ? nullptr : memory_->row(up_, token) + start,
               std::min(width_ - start, kBlock), limit_, memory_->row(out_, token) + start);
    }
  }

 private:
  int64_t blocks() const { return (width_ + kBlock - 1) / kBlock; }

  const int64_t out_, gate_, up_, width_, kind_;
  const float limit_;
  Memory* memory_ = nullptr;
};

// Registers out, first and second; their width. Factor: that of the second. Items are tokens.
class Add : public Operation {
 public:
  Add(Integers& in, const float* factors)
      : out_(in.Next()), first_(in.Next()), second_(in.Next()), width_(in.Next()),
        factor_(factors[0]) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    return memory.IsRegister(out_, width_) && memory.IsRegister(first_, width_) &&
           memory.IsRegister(second_, width_);
  }
  int64_t count() const override { return memory_->tokens; }
  int64_t cost() const override { return width_ / 4; }
  void Run(int64_t first, int64_t last) const override {
    for (int64_t token = first; token < last; ++token) {
      float* out = memory_->row(out_, token);
      const float* one = memory_->row(first_, token);
      const float* other = memory_->row(second_, token);
      for (int64_t i = 0; i < width_; ++i) out[i] = one[i] + factor_ * other[i];
    }
  }

 private:
  const int64_t out_, first_, second_, width_;
  const float factor_;
  Memory* memory_ = nullptr;
};

template <typename Kind>
std::unique_ptr<Operation> Make(Integers& integers, const float* factors) {
  return std::make_unique<Kind>(integers, factors);
}

// By their codes; `Code` in step_program.py has the same order.
constexpr std::unique_ptr<Operation> (*kMakers[])(Integers&, const float*) = {
    Make<Norm>,  Make<Quantize>, Make<Linear>,   Make<Rotate>,
    Make<Store>, Make<Attend>,   Make<Activate>, Make<Add>,
    MakeRoute,   MakeExpertLinear, MakeMix};
constexpr int64_t kCodes = sizeof kMakers / sizeof *kMakers;

}  // namespace

std::vector<std::unique_ptr<Operation>> Operations(const Step& step) {
  std::vector<std::unique_ptr<Operation>> operations;
  int64_t at = 0;
  while (at < step.program_size) {
    const int64_t code = step.program[at];
    const int64_t left = step.program_size - at - 2;
    const int64_t factor = 2 * static_cast<int64_t>(operations.size());
    if (code < 0 || code >= kCodes || left < 0 || step.program[at + 1] < 0 ||
        step.program[at + 1] > left || factor + 2 > step.num_factors) {
      return {};
    }
    Integers integers(step.program + at + 2, step.program[at + 1]);
    operations.push_back(kMakers[code](integers, step.factors + factor));
    if (!integers.is_at_end()) return {};
    at += 2 + step.program[at + 1];
  }
  return operations;
}

}  // namespace nextword
