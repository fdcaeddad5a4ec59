// A layer as this compiler has it: its router and its grouped products, and between
// them what moe has for dispatch and combine.

func.func @layer(%x: tensor<?x24xf32> {moe.name = "x"},
                 %router: tensor<24x4xf32> {moe.role = "weight", moe.name = "router"},
                 %up: tensor<4x24x40xf32> {moe.role = "weight", moe.name = "up"},
                 %down: tensor<4x40x24xf32> {moe.role = "weight", moe.name = "down"})
    -> tensor<?x24xf32> {
  %weights, %ids = acme.router %x, %router best 2
    : (tensor<?x24xf32>, tensor<24x4xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(4)
    : tensor<?x24xf32>, tensor<?x2xi32>
  %h = acme.grouped_product %rows, %offsets, %up
    : (tensor<?x24xf32>, tensor<5xi32>, tensor<4x24x40xf32>) -> tensor<?x40xf32>
  %a = math.absf %h : tensor<?x40xf32>
  %y = acme.grouped_product %a, %offsets, %down
    : (tensor<?x40xf32>, tensor<5xi32>, tensor<4x40x24xf32>) -> tensor<?x24xf32>
  %r = moe.combine %y, %positions weights(%weights : tensor<?x2xf32>)
    : tensor<?x24xf32>, tensor<?x2xi32>
  return %r : tensor<?x24xf32>
}
